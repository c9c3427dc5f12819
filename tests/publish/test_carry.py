"""A perturbation at another size keeps its budget, and comes back where a victim resizes the image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from hpcule.data.resize import resize_planes
from hpcule.publish.carry import carried

EPSILON = 8


def crafted(size=32, seed=0, smooth=0):
    """Random signs, smoothed by so many pixels."""
    rng = np.random.default_rng(seed)
    noise = torch.from_numpy(rng.choice([-1.0, 1.0], (1, 3, size, size)))
    if smooth:
        noise = functional.avg_pool2d(noise, 2 * smooth + 1, 1, smooth, count_include_pad=False).sign()
    return (EPSILON * noise[0]).round().int().numpy().astype(np.int8)


@pytest.mark.parametrize("size", [(32, 32), (224, 224), (100, 333), (33, 31), (20, 500), (16, 16), (1, 1)])
def test_it_has_the_size_and_keeps_the_budget(size):
    found = carried(crafted(), size, EPSILON)
    assert found.shape == (3, *size)
    assert np.abs(found).max() <= EPSILON
    assert found.dtype == np.int32


def test_at_the_same_size_it_is_the_same():
    assert np.array_equal(carried(crafted(), (32, 32), EPSILON), crafted())


@pytest.mark.parametrize(("smooth", "least"), [(0, 0.9), (1, 0.97), (3, 0.99)])
@pytest.mark.parametrize("size", [(64, 64), (224, 224), (150, 417)])
def test_a_victims_resize_gives_it_back(size, smooth, least):
    delta = crafted(smooth=smooth)
    clean = np.full((3, *size), 128, np.uint8)
    published = (clean + carried(delta, size, EPSILON)).astype(np.uint8)
    back = resize_planes(published, 32).astype(int) - 128
    assert np.corrcoef(back.ravel(), delta.ravel())[0, 1] > least
    plain = functional.interpolate(torch.from_numpy(delta[None]).float(), size, mode="bicubic").clamp(-8, 8).round()
    uncorrected = resize_planes((clean + plain[0].numpy()).astype(np.uint8), 32).astype(int) - 128
    assert np.abs(back - delta).mean() < np.abs(uncorrected - delta).mean()


def test_a_fraction_of_a_level_is_no_budget():
    assert np.abs(carried(crafted(), (50, 50), 7.9)).max() <= 7
