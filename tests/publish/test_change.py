"""Figures of an export carry their units."""

from __future__ import annotations

import pytest

from hpcule.publish.change import LargestChange
from hpcule.publish.export import export
from hpcule.store.budget import Budget
from hpcule.store.vault import Vault


@pytest.mark.parametrize(
    ("budget", "levels", "changes", "expected"),
    [
        (Budget("linf", 8), 255, [(8, 8)], "8 of 255 levels"),
        (Budget("linf", 2056), 65535, [(2056, 2056)], "2,056 of 65,535 levels"),
        (Budget("l2", 4700), 255, [(4646.7, 41), (3, 42)], "4,647 (L2), a value by up to 42 of 255 levels"),
        (Budget("l0", 1), 255, [(1, 200)], "1 pixel, a value by up to 200 of 255 levels"),
        (Budget("l0", 3), 255, [(2, 200)], "2 pixels, a value by up to 200 of 255 levels"),
        (
            Budget("linf", 8, 1),
            255,
            [(8, 201)],
            "8 of 255 levels apart from 1 free pixel, a value by up to 201 of 255 levels",
        ),
        (
            Budget("linf", 8),
            255,
            [(7.998, 7.998, 941), (2, 2, 3)],
            "8 of 255 levels of the window, up to 941 stored values",
        ),
        (Budget("linf", 8), 255, [], "0 of 255 levels"),
    ],
)  # fmt: skip
def test_each_figure_has_its_unit(budget, levels, changes, expected):
    largest = LargestChange(budget, levels)
    for change in changes:
        largest.add(*change)
    assert str(largest) == expected


def test_a_budget_of_stored_values():
    largest = LargestChange(Budget("linf", 8), 255, in_stored=True)
    largest.add(1.0, 1.0, 1)
    assert str(largest) == "1 stored value"


def test_the_figures_are_those_of_the_copy(make_source, make_store, tmp_path):
    source = make_source()
    source.samples[:] = 128
    source.samples[:, 0] = 127
    store, _, delta, _ = make_store(source, norm="l2", epsilon=40.0)
    summary = export(Vault(store), source, tmp_path / "out")
    length = max(float((one.astype(float) ** 2).sum() ** 0.5) for one in delta)
    assert summary.largest == pytest.approx(length)
    assert summary.change == f"{length:.0f} (L2), a value by up to {abs(delta).max()} of 255 levels"
