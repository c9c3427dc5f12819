"""What a study finds on each of its data sets."""

import pytest

from hpcule.study.data_sets import data_set_results


def row(data, seed, batch, protected, *, noise=0.6, invalid=False, **more):
    """A cell on a data set whose batches of more than 40 are cut."""
    values = {"clean_last": 0.9, "noise_last": noise, "protected_last": protected, "invalid": invalid}
    batches = {"craft_batch_asked": batch, "craft_batch": min(batch, 40), "protected_batch": 16}
    facts = {"samples": 40 if data == "small" else 500, "chance": 0.5 if data == "small" else 0.1}
    return {"data": data, "seed": seed, **facts, **values, **batches, "protected_batch_asked": 16, **more}


def test_a_data_set_has_the_mean_over_each_seeds_cells():
    rows = [row("small", seed, batch, 0.3 + 0.1 * seed + batch / 1000) for batch in (30, 50) for seed in (0, 1)]
    rows += [row("large", seed, 30, 0.2) for seed in (0, 1, 2)]
    small, large = data_set_results(rows, [])
    assert (small.values, small.samples, small.chance, small.cells) == (["small"], 40, 0.5, 4)
    assert small.accuracy["protected"].mean == pytest.approx(0.39)
    assert small.accuracy["protected"].n == 2, "seeds, not cells, are repetitions"
    assert small.leads["noise"].mean == pytest.approx(0.21)
    assert small.craft_batches == "30, 50 (taken: 40)"
    assert small.victim_batches == "16"
    assert (large.values, large.accuracy["protected"].n) == (["large"], 3)
    assert "matched" not in large.leads


def test_variants_are_kept_apart_and_invalid_cells_left_out():
    rows = [row("small", 0, 30, 0.3, variant="a"), row("small", 0, 30, 0.4, variant="b", invalid=True)]
    rows.append(row("small", 1, 30, 0.5, variant="b"))
    first, second = data_set_results(rows, ["variant"])
    assert (first.values, second.values) == (["small", "a"], ["small", "b"])
    assert (second.cells, second.invalid, second.accuracy["protected"].mean) == (2, 1, 0.5)
    (none,) = data_set_results([row("small", 0, 30, 0.3, invalid=True)], [])
    assert (none.invalid, none.accuracy, none.leads) == (1, {}, {})
