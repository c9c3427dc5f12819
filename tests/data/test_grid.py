"""Stored values move by the budget at most, in the right direction, and padding stays out of it."""

from __future__ import annotations

import numpy as np
import pytest

from hpcule.data.grid import linear


@pytest.mark.parametrize(("window", "epsilon", "bound"), [((0, 255), 8, 8), ((0, 399), 8, 12), ((0, 19), 8, 0)])
def test_a_bound_is_rounded_down(window, epsilon, bound):
    grid = linear(-1000, 1000, window)
    assert grid.bound(epsilon) == bound
    assert linear(-1000, 1000, window[::-1]).bound(epsilon) == bound
    assert grid.in_stored_levels().bound(epsilon) == epsilon


def test_every_whole_unit_is_kept_whole():
    for width in range(1, 3000):
        assert linear(0, 9, (0, width * 255)).bound(8) == 8 * width


@pytest.mark.parametrize("window", [(0, 510), (510, 0)])
def test_brighter_is_brighter(window):
    grid = linear(0, 510, window)
    stored = np.full((1, 3, 3), 250, np.uint16)
    moved = grid.moved(stored, np.full(stored.shape, 5.0), 8)
    assert (grid.shown(moved).astype(int) - grid.shown(stored) == 5).all()
    assert np.abs(moved.astype(int) - stored).max() == 10
    assert moved.dtype == np.uint16


def test_limits_and_padding_are_not_passed():
    grid = linear(-8, 7, (-8, 7), padding=(3, 4))
    stored = np.array([[[-8, 7, 3, 2, 5, 100]]], np.int16)
    moved = grid.in_stored_levels().moved(stored, np.array([[[-9.0, 9, 9, 1, -1, -5]]]), 8)
    assert moved.tolist() == [[[-8, 7, 3, 2, 5, 100]]]
    assert grid.pads(stored).tolist() == [[[False, False, True, False, False, False]]]


def test_one_grey_has_no_budget():
    grid = linear(0, 255, (9, 9))
    stored = np.full((1, 2, 2), 9, np.uint8)
    assert grid.bound(127) == 0
    assert np.array_equal(grid.moved(stored, np.full(stored.shape, 8.0), 8), stored)
