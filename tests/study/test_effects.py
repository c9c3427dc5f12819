import pytest

from hpcule.study.effects import effects, sentences

BATCH = "craft.method.batch"


def row(batch, seed, taken, *, rate="constant", clean=0.9, invalid=False):
    return {
        BATCH: batch,
        "rate": rate,
        "seed": seed,
        "clean_last": clean + 0.01 * seed,
        "protected_last": clean + 0.01 * seed - taken,
        "invalid": invalid,
    }


def rows(slope, *, noise=0.0, rate="constant"):
    """Protection 0.1 at a batch of 32, and `slope` more at each doubling; seeds differ by `noise`."""
    return [
        row(32 * 2**step, seed, 0.1 + (slope + noise * (seed - 1)) * step, rate=rate)
        for step in range(3)
        for seed in range(3)
    ]


@pytest.mark.parametrize("slope", [0.03, -0.02])
def test_the_slope_of_each_doubling_is_recovered_seed_by_seed(slope):
    (effect,) = effects(rows(slope, noise=0.005), [BATCH])
    assert effect.slope.mean == pytest.approx(slope)
    # Slopes slope - 0.005, slope, slope + 0.005: standard deviation 0.005, t(2) at 97.5 % is 4.303.
    assert effect.slope.interval == pytest.approx(
        (slope - 4.303 * 0.005 / 3**0.5, slope + 4.303 * 0.005 / 3**0.5), 1e-3
    )
    assert effect.slope.side == (1 if slope > 0 else -1)
    (sentence,) = sentences([effect])
    assert f"by {100 * slope:+.1f} points" in sentence
    assert ("at 1 of 1 settings of the other factors a larger value protects more" in sentence) == (slope > 0)


def test_seeds_that_disagree_tell_nothing():
    (effect,) = effects(rows(0.01, noise=0.02), [BATCH])
    assert effect.slope.side == 0
    assert "at 1 the 95% confidence interval of the slope includes 0" in sentences([effect])[0]


def test_each_setting_of_the_rest_has_its_own_slope():
    found = effects(rows(0.03) + rows(-0.02, rate="linear"), [BATCH, "rate"])
    assert [(effect.where["rate"], round(effect.slope.mean, 6)) for effect in found] == [
        ("constant", 0.03),
        ("linear", -0.02),
    ]
    assert "-2.0 to +3.0 points" in sentences(found)[0]


def test_invalid_cells_and_seeds_with_a_gap_are_left_out():
    found = rows(0.03)
    found[0] |= {"invalid": True, "protected_last": 0.0}
    del found[4]
    (effect,) = effects(found, [BATCH])
    assert effect.slope.n == 1
    assert effect.slope.mean == pytest.approx(0.03)
    assert effect.slope.side == 0


def test_what_is_no_number_or_does_not_vary_has_no_slope():
    assert effects(rows(0.03), ["rate"]) == []
    assert effects([row(32, seed, 0.1) for seed in range(3)], [BATCH]) == []
    assert sentences([]) == []
