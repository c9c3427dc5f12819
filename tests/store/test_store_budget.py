from __future__ import annotations

import numpy as np
import pytest

from hpcule.store.budget import excess, magnitude


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
    assert excess(delta, 9.0, "linf") == (3, 10.0)
    assert excess(delta, 8.0, "linf") == (2, 9.0)
    assert excess(delta, 10.0, "linf") is None
    delta[1] = 3
    assert excess(delta, 5.9, "l2") == (1, 6.0)
    assert excess(delta, 6.0, "l2") == (2, 9.0)
