"""Random changes of training chains against slow readings of what they say."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import affine_transform, correlate

from hpcule.victim.countermeasures.augmentation import augment
from hpcule.victim.countermeasures.table import countermeasure
from hpcule.world.keyed import normal, uniform

IDS = np.arange(40, dtype=np.int64)
PURPOSE = 7


def images(n=40, shape=(3, 16, 20)):
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(0)) * 0.9 + 0.05


def through(text, values, ids=IDS):
    return augment(values, [countermeasure(text)], PURPOSE, ids)


def test_gamma_keeps_the_darkest_and_the_brightest_value():
    values = images()
    found = through("gamma", values)
    torch.testing.assert_close(found.amin((1, 2, 3)), values.amin((1, 2, 3)))
    torch.testing.assert_close(found.amax((1, 2, 3)), values.amax((1, 2, 3)))
    powers = []
    for before, after in zip(values.double(), found.double(), strict=True):
        low, span = before.min(), before.max() - before.min()
        inside = (before > low + 0.2 * span) & (before < low + 0.8 * span)
        power = (((after - low) / span).log() / ((before - low) / span).log())[inside]
        assert power.std() < 1e-4
        powers.append(power.mean().item())
    assert min(powers) > 0.7 - 1e-4
    assert max(powers) < 1.5 + 1e-4
    assert 10 < sum(power < 1 for power in powers) < 30


@pytest.mark.parametrize("deviation", [2, 13])
def test_noise_is_that_of_the_sample(deviation):
    values = torch.full((40, 1, 16, 20), 0.5)
    found = through(f"noise-{deviation}", values)
    drawn = normal(PURPOSE, IDS, 320).reshape(40, 1, 16, 20)
    torch.testing.assert_close(found, (0.5 + deviation / 255 * torch.from_numpy(drawn)).float())
    assert found.std().item() == pytest.approx(deviation / 255, rel=0.02)


@pytest.mark.parametrize("degrees", [15, 180])
def test_affine_takes_pixels_where_they_come_from(degrees):
    values = images(6)
    found = through(f"affine-{degrees}", values, IDS[:6])
    draws = uniform(PURPOSE, IDS[:6], 2).astype(float)
    centre = np.array([7.5, 9.5])
    for before, after, (turn, scale) in zip(values, found, draws, strict=True):
        angle, factor = math.radians(degrees) * (2 * turn - 1), 0.85 + 0.4 * scale
        matrix = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]) / factor
        slow = [
            affine_transform(plane.numpy(), matrix, centre - matrix @ centre, order=1, mode="grid-constant")
            for plane in before
        ]
        np.testing.assert_allclose(after.numpy(), slow, atol=1e-4)


def test_brightness_and_contrast_are_lines():
    values = images() / 2 + 0.2
    found = through("contrast", values)
    slopes = []
    for before, after in zip(values.flatten(1).double(), found.flatten(1).double(), strict=True):
        inside = (after > 0) & (after < 1)
        slope, _ = np.polyfit(before[inside], after[inside], 1)
        assert np.abs(np.polyval((slope, _), before[inside]) - after[inside].numpy()).max() < 1e-4
        slopes.append(slope)
    assert 0.75**2 < min(slopes) < 0.9
    assert 1.1 < max(slopes) < 1.25**2


def test_sharpening_is_a_convolution_with_a_kernel_of_five():
    values = images(3) / 4 + 0.4
    found = through("sharpen", values, IDS[:3])
    for before, after, draws in zip(values, found, 0.1 * normal(PURPOSE, IDS[:3], 5), strict=True):
        middle = 2.5 + draws[0]
        up, down, left, right = (1 - middle) / 4 + draws[1:]
        kernel = np.array([[0, up, 0], [left, middle, right], [0, down, 0]])
        slow = [correlate(plane.numpy().astype(float), kernel, mode="nearest").clip(0, 1) for plane in before]
        np.testing.assert_allclose(after.numpy(), slow, atol=1e-5)


@pytest.mark.parametrize(("percent", "least", "most"), [(1, 0, 2), (40, 8, 24), (100, 40, 40)])
def test_a_share_of_the_images_loses_its_colours(percent, least, most):
    values = images()
    found = through(f"random-grayscale-{percent}", values)
    gray = (found.amax(1) - found.amin(1) < 1e-6).all((1, 2))
    torch.testing.assert_close(found[~gray], values[~gray])
    luminance = (torch.tensor([0.299, 0.587, 0.114])[:, None, None] * values).sum(1, keepdim=True)
    torch.testing.assert_close(found[gray], luminance[gray].expand(-1, 3, -1, -1), atol=1e-3, rtol=0)
    assert least <= gray.sum() <= most
    single = values[:, :1]
    torch.testing.assert_close(through("random-grayscale", single), single)
