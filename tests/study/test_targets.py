"""Steps to a target, put together from the rows of a study."""

import pytest

from hpcule.study.critical_batch import steps_to_target
from hpcule.study.targets import target_steps

CRAFT, VICTIM = "craft.method.batch", "victim.batch"


def make_rows(crafting=None, protected=None):
    """A full grid; steps as functions of batch and seed."""
    found = []
    for craft_batch in (16, 64, 256):
        for victim_batch in (16, 64, 256):
            for rate in ("constant", "linear"):
                for seed in range(3):
                    row = {CRAFT: craft_batch, VICTIM: victim_batch, "rate": rate, "seed": seed}
                    row["craft_steps_to_target"] = crafting(craft_batch, seed, rate) if crafting else None
                    row["protected_steps_to_target"] = protected(victim_batch, seed) if protected else None
                    row["clean_steps_to_target"] = None
                    found.append(row)
    return found


def on_the_curve(batch, seed, rate="constant"):
    return round(float(steps_to_target(batch, 40.0, 60.0)) * (1 + 0.05 * (seed - 1)) * (2 if rate == "linear" else 1))


def test_crafting_depends_on_what_the_craft_has_and_each_craft_counts_once():
    found = target_steps(make_rows(crafting=on_the_curve), [CRAFT, VICTIM, "rate"])
    assert [(fit.who, fit.where) for fit in found] == [
        ("crafting", {"rate": "constant"}),
        ("crafting", {"rate": "linear"}),
    ]
    for fit in found:
        assert {batch: len(seeds) for batch, seeds in fit.steps.items()} == {16: 3, 64: 3, 256: 3}
        assert fit.curve.critical_batch == pytest.approx(60, rel=0.1)
        assert "The critical batch size is 6" in fit.sentence()
    assert found[1].curve.minimum_steps == pytest.approx(2 * found[0].curve.minimum_steps, rel=0.05)


def test_crafts_of_each_variant_are_fitted_by_themselves():
    rows = [
        row | {"variant": variant, "craft_steps_to_target": factor * row["craft_steps_to_target"]}
        for variant, factor in (("fast", 1), ("slow", 3))
        for row in make_rows(crafting=on_the_curve)
        if row["rate"] == "constant"
    ]
    fast, slow = target_steps(rows, ["variant", CRAFT])
    assert (fast.where, slow.where) == ({"variant": "fast"}, {"variant": "slow"})
    assert slow.curve.minimum_steps == pytest.approx(3 * fast.curve.minimum_steps, rel=0.05)


def test_victims_on_protected_samples_depend_on_both():
    found = target_steps(make_rows(protected=on_the_curve), [CRAFT, VICTIM])
    assert [fit.where for fit in found] == [{CRAFT: batch} for batch in (16, 64, 256)]
    assert all(fit.factor == VICTIM for fit in found)


def test_what_misses_the_target_is_not_fitted():
    found = target_steps(make_rows(crafting=lambda batch, seed, rate: None if batch == 16 else 50), [CRAFT])
    assert len(found) == 1
    assert "not identifiable: 2 batch sizes reached the target" in found[0].sentence()


def test_a_study_without_targets_has_none():
    assert target_steps(make_rows(), [CRAFT, VICTIM]) == []
