from __future__ import annotations

import numpy as np
import pytest
import torch

from hpcule.victim.countermeasures.plasma import INTENSITY, ROUGHNESS, clouds, plasma_brightness, plasma_contrast
from hpcule.world.keyed import uniform

IDS = np.arange(20, dtype=np.int64)


def images(shape=(3, 17, 17)):
    return torch.rand(20, *shape, generator=torch.Generator().manual_seed(0))


def slow_clouds(purpose, number, channel, channels, size):
    """Midpoint displacement, point by point."""
    levels = (size - 1).bit_length()
    sizes = [(2**level + 1) ** 2 for level in range(levels + 1)]
    ids = IDS[number : number + 1]
    noise = np.split(
        2 * uniform(purpose, ids, channels * sum(sizes)).reshape(channels, -1)[channel] - 1, np.cumsum(sizes)[:-1]
    )
    low, high = ROUGHNESS
    roughness = low + (high - low) * uniform(purpose ^ 2, ids, 1)[0, 0]
    grid = noise[0].reshape(2, 2)
    for level in range(1, levels + 1):
        n = 2**level + 1
        fine, extra = np.zeros((n, n)), roughness**level * noise[level].reshape(n, n)
        fine[::2, ::2] = grid
        for i in range(1, n, 2):
            for j in range(1, n, 2):
                fine[i, j] = np.mean([fine[i + a, j + b] for a in (-1, 1) for b in (-1, 1)]) + extra[i, j]
        for i in range(n):
            for j in range(n):
                if (i + j) % 2:
                    mirrored = [(abs(a), abs(b)) for a, b in ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1))]
                    near = [(a if a < n else 2 * (n - 1) - a, b if b < n else 2 * (n - 1) - b) for a, b in mirrored]
                    fine[i, j] = np.mean([fine[place] for place in near]) + extra[i, j]
        grid = fine
    grid = grid[:size, :size]
    return (grid - grid.min()) / (grid.max() - grid.min())


@pytest.mark.parametrize("size", [17, 13])
def test_clouds_equal_slow_midpoint_displacement(size):
    found = clouds(images((2, size, size)), 5, IDS)
    for number, channel in ((0, 0), (7, 1)):
        np.testing.assert_allclose(found[number, channel], slow_clouds(5, number, channel, 2, size), atol=1e-5)


def test_clouds_span_their_range_and_are_smooth():
    found = clouds(images((1, 32, 24)), 5, IDS)
    assert found.shape == (20, 1, 32, 24)
    assert torch.equal(found.amin((2, 3)), torch.zeros(20, 1))
    torch.testing.assert_close(found.amax((2, 3)), torch.ones(20, 1))
    steps = (found[:, :, 1:] - found[:, :, :-1]).abs().mean()
    assert steps < 0.1


def test_brightness_and_contrast_follow_the_clouds():
    flat = torch.full((20, 3, 16, 16), 0.5)
    bright = plasma_brightness(flat, 5, IDS)
    assert bright.min() >= 0
    assert bright.max() <= 1
    inside = (bright > 0) & (bright < 1)
    ratio = ((bright - 0.5) / (2 * clouds(flat, 5, IDS) - 1))[inside]
    assert INTENSITY[0] - 0.01 <= ratio.median() <= INTENSITY[1] + 0.01
    torch.testing.assert_close(plasma_contrast(flat, 5, IDS), flat)
    values = images((3, 16, 16)) * 0.1 + 0.45
    torch.testing.assert_close(plasma_contrast(values, 5, IDS), (values - 0.5) * 4 * clouds(values, 5, IDS) + 0.5)
