from __future__ import annotations

import numpy as np
import pytest
import torch

from hpcule.victim.countermeasures.on_grid import on_grid

CPU = torch.device("cpu")


@pytest.mark.parametrize(("dtype", "levels"), [(np.uint8, 255), (np.uint16, 65535)])
@pytest.mark.parametrize("count", [0, 1, 64, 130])
def test_images_are_clipped_and_rounded(count, dtype, levels):
    rng = np.random.default_rng(0)
    ids, samples = rng.permutation(1000)[:count], rng.integers(0, levels + 1, (count, 2, 3, 4)).astype(dtype)
    found = on_grid(lambda images, seen: images * 1.5 + torch.from_numpy(seen)[:, None, None, None] / 2000, levels, CPU)
    expected = (samples.astype(np.float64) / levels * 1.5 + ids[:, None, None, None] / 2000).clip(0, 1) * levels
    result = found(ids, samples)
    assert result.dtype == dtype
    np.testing.assert_allclose(result, expected, atol=0.51)


def test_what_becomes_of_a_sample_does_not_depend_on_the_others():
    torch.manual_seed(0)
    network = torch.nn.Conv2d(3, 3, 3, padding=1)
    change = on_grid(lambda images, ids: network(images), 255, CPU)
    samples = np.random.default_rng(0).integers(0, 256, (100, 3, 9, 9)).astype(np.uint8)
    whole = change(np.arange(100), samples)
    for rows in ([99], [3, 50, 70], range(30, 95)):
        np.testing.assert_array_equal(change(np.array(rows), samples[rows]), whole[rows])
