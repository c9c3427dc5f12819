"""Taking a perturbation off, against all that could have been there before."""

from __future__ import annotations

import numpy as np
import pytest

from hpcule.publish.revert import take_off

LEVELS, BOUND = 40, 5


@pytest.mark.parametrize("cut", [True, False])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_every_published_value_and_delta(cut, dtype):
    for delta in range(-BOUND, BOUND + 1):
        for published in range(LEVELS + 1):
            before = [
                clean
                for clean in range(LEVELS + 1)
                if (min(max(clean + delta, 0), LEVELS) if cut else clean + delta) == published
            ]
            taken, uncertain, impossible = take_off(
                np.array([published], dtype), np.array([delta], np.int8), LEVELS, cut=cut
            )
            assert taken.dtype == dtype
            assert bool(impossible[0]) is (not before)
            assert bool(uncertain[0]) is (len(before) > 1)
            if len(before) == 1:
                assert taken[0] == before[0]
            elif before:
                assert taken[0] == published
                assert published in before
