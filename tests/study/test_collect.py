import pytest

from hpcule.config.errors import StoreError
from hpcule.report.study import noise_sentences
from hpcule.study.collect import points, write_rows

FACTORS = ["craft.method.batch"]


def row(batch, seed, protected, noise=0.8, clean=0.9, invalid=False):
    values = {"protected_last": protected, "noise_last": noise, "clean_last": clean}
    craft = f"craft of {batch} and {seed}"
    return {"craft.method.batch": batch, "seed": seed, "craft": craft, **values, "chance": 0.5, "invalid": invalid}


def test_a_point_is_the_mean_over_its_seeds():
    (point,) = points([row(32, 0, 0.6), row(32, 1, 0.7)], FACTORS)
    assert point.factors == {"craft.method.batch": 32}
    assert point.accuracy["protected"].mean == pytest.approx(0.65)
    assert point.leads["noise"].mean == pytest.approx(0.15)
    assert point.seeds == 2
    assert "untrained" not in point.accuracy


def test_a_difference_is_taken_seed_by_seed():
    """Seeds that differ much, and a method that is better by the same in each."""
    (point,) = points([row(32, s, 0.3 + 0.2 * s, noise=0.4 + 0.2 * s) for s in range(3)], FACTORS)
    low, high = point.leads["noise"].interval
    assert low == pytest.approx(0.1)
    assert high == pytest.approx(0.1)


def test_invalid_cells_are_counted_and_left_out():
    (point,) = points([row(32, 0, 0.6), row(32, 1, 0.1, clean=0.5, invalid=True)], FACTORS)
    assert (point.seeds, point.invalid) == (2, 1)
    assert point.accuracy["protected"].mean == pytest.approx(0.6)


def test_a_point_without_a_valid_cell_has_no_numbers():
    (point,) = points([row(32, 0, 0.6, invalid=True)], FACTORS)
    assert point.accuracy == {}
    assert point.leads == {}


@pytest.mark.parametrize(
    ("protected", "expected"),
    [
        ([0.5, 0.51, 0.52], "At 1 of 1 points the method lowers the victims' accuracy more"),
        ([0.9, 0.91, 0.92], "at 1 it lowers it less"),
        ([0.7, 0.8, 0.9], "at 1 the interval includes 0"),
    ],
)
def test_the_answer_says_which_way(protected, expected):
    rows = [row(32, seed, value) for seed, value in enumerate(protected)]
    text = noise_sentences(points(rows, FACTORS))
    assert expected in text[0]
    assert ("Better: craft batch 32" in " ".join(text)) == (protected[0] == 0.5)
    assert "the p-value of the sign-flip test cannot fall below 0.25" in text[-1]


def test_noise_as_strong_as_the_deltas_is_a_second_thing_to_beat():
    rows = [row(32, seed, 0.7 + 0.01 * seed) | {"matched_last": 0.75 + 0.012 * seed} for seed in range(3)]
    (point,) = points([row | {"noise_last": 0.6} for row in rows], FACTORS)
    assert point.leads["noise"].interval[1] < 0 < point.leads["matched"].interval[0]
    text = noise_sentences([point])
    assert "full budget" in text[0]
    assert "at 1 it lowers it less" in text[0]
    assert "as strong as the method's perturbation" in text[1]
    assert "At 1 of 1 points" in text[1]


def test_with_enough_seeds_several_points_are_corrected_for():
    rows = [row(32, seed, 0.5 + 0.01 * seed) for seed in range(8)]
    rows += [row(64, seed, 0.8 + 0.01 * (-1) ** seed) for seed in range(8)]
    text = noise_sentences(points(rows, FACTORS))
    assert "The p-value of the sign-flip test is below 0.05 at 1 of 2 points after Holm's correction." in text[-1]


def test_the_same_crafts_under_several_names_count_once():
    """Every learning-rate policy asks for the same at the batch that it starts from."""
    rows = [row(32, seed, 0.5 + 0.01 * seed) | {"rate": rate} for rate in ("constant", "linear") for seed in range(8)]
    rows += [row(64, seed, 0.9 - 0.01 * seed) | {"rate": "constant"} for seed in range(8)]
    text = noise_sentences(points(rows, [*FACTORS, "rate"]))
    assert text[0].startswith("At 1 of 2 points")
    assert text[1].startswith(
        "Better: craft batch 32, rate constant (and 1 other settings with the same crafts): +26.5 points"
    )
    assert "at 2 of 2 points after Holm's correction" in text[-1]


def test_the_same_crafts_with_other_victims_count_by_themselves():
    rows = [row(32, seed, 0.5 + 0.01 * seed) | {"recipe": r} for r in ("plain", "crop-flip") for seed in range(3)]
    assert noise_sentences(points(rows, ["recipe"]))[0].startswith("At 2 of 2 points")


def test_the_same_victims_under_several_policies_of_their_rates_count_once():
    rows = [
        row(32, seed, 0.5 + 0.01 * seed)
        | {"victim.batch": batch, "victim_rate": rate, "victim_learning_rate": 0.1 if rate == "constant" else scaled}
        for batch, scaled in ((16, 0.1), (64, 0.4))
        for rate in ("constant", "linear")
        for seed in range(3)
    ]
    assert noise_sentences(points(rows, ["victim.batch", "victim_rate"]))[0].startswith("At 3 of 3 points")


def test_a_single_seed_tells_nothing_apart():
    assert "supports no conclusion" in noise_sentences(points([row(32, 0, 0.1)], FACTORS))[0]


@pytest.mark.parametrize("values", [(1, 2**80), (1, "a")])
def test_columns_that_no_table_holds_are_named(tmp_path, values):
    pytest.importorskip("pyarrow")
    with pytest.raises(
        StoreError, match=r"cells\.parquet cannot hold what is in .*cells\.csv .*: delete what was changed"
    ):
        write_rows([{"cell": 0, "craft_batch": value} for value in values], tmp_path)
    assert (tmp_path / "cells.csv").read_text().splitlines()[1:] == [f"0,{value}" for value in values]
