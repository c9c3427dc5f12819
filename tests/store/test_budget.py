from __future__ import annotations

import numpy as np
import pytest

from hpcule.store.budget import Budget, magnitude


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32])
def test_magnitude_equals_exact_integer_arithmetic(dtype):
    rng = np.random.default_rng(0)
    limits = np.iinfo(dtype)
    delta = rng.integers(max(limits.min, -65535), min(limits.max, 65535), (7, 3, 4, 5), dtype=dtype, endpoint=True)
    delta[0] = max(limits.min, -65535)
    delta[1] = min(limits.max, 65535)
    delta[2, :, 1:3], delta[3, 1] = 0, 0
    for row, linf, l2, l0 in zip(delta, *(magnitude(delta, norm) for norm in ("linf", "l2", "l0")), strict=True):
        values = [int(value) for value in row.ravel()]
        assert l0 == sum(any(row[:, i, j]) for i in range(4) for j in range(5))
        assert linf == max(abs(value) for value in values)
        assert l2 == sum(value * value for value in values) ** 0.5


def test_excess_names_the_first_above_the_budget():
    delta = np.zeros((4, 1, 2, 2), np.int8)
    delta[2, 0, 0, 0], delta[3, 0, 1, 1] = -9, 10
    assert Budget("linf", 9.0).excess(delta) == (3, 10.0)
    assert Budget("linf", 8.0).excess(delta) == (2, 9.0)
    assert Budget("linf", 10.0).excess(delta) is None
    delta[1] = 3
    assert Budget("l2", 5.9).excess(delta) == (1, 6.0)
    assert Budget("l2", 6.0).excess(delta) == (2, 9.0)


@pytest.mark.parametrize("free", [1, 3])
def test_free_pixels_do_not_count_with_any_of_their_channels(free):
    delta = np.random.default_rng(0).integers(-200, 201, (20, 3, 4, 5), np.int16)
    delta[0] = 0
    for sample, found in zip(delta, Budget("linf", 8.0, free).spent(delta), strict=True):
        pixels = sorted(int(abs(sample[:, row, column]).max()) for row in range(4) for column in range(5))
        assert found == pixels[-1 - free]


def test_a_free_pixel_takes_no_more_than_itself():
    delta = np.zeros((2, 3, 2, 2), np.int16)
    delta[0, :, 0, 1], delta[1, :, 0, 1] = -255, 255
    delta[1, 2, 1, 1] = 9
    budget = Budget("linf", 8.0, 1)
    assert budget.excess(delta[:1]) is None
    assert budget.excess(delta) == (1, 9.0)
    assert budget.exceeded(9.0) == "changed by 9 levels (L-infinity), 8 are allowed apart from 1 free pixel(s)"
    assert budget.dtype(255) == np.int16
