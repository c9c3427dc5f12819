"""An attacker's steps: drawn by id, differentiable, and each what it says."""

import numpy as np
import pytest
import torch

from hpcule.craft.parts import attacker_steps
from hpcule.craft.parts.attacker_steps import disturbed

PURPOSE = 7


def images_of(count, channels=3, height=24, width=20):
    return torch.rand(count, channels, height, width, generator=torch.Generator().manual_seed(0)) * 0.5 + 0.25


def test_an_id_draws_the_same_in_any_company():
    images, ids = images_of(40), np.arange(100, 140)
    together = disturbed(images, PURPOSE, ids)
    chosen = np.array([31, 3, 8])
    torch.testing.assert_close(disturbed(images[chosen], PURPOSE, ids[chosen]), together[chosen], rtol=0, atol=0)
    assert (disturbed(images, PURPOSE + 1, ids) != together).flatten(1).any(1).sum() > 20


def test_all_steps_are_drawn_and_one_leaves_the_image_alone():
    images = images_of(300)
    found = disturbed(images, PURPOSE, np.arange(300))
    assert found.shape == images.shape
    alone = (found == images).flatten(1).all(1).double().mean()
    grey = (found == found[:, :1]).flatten(1).all(1).double().mean()
    assert (float(alone), float(grey)) == pytest.approx((1 / 6, 1 / 6), abs=0.06)


@pytest.mark.parametrize("step", attacker_steps._STEPS)
@pytest.mark.parametrize("strength", [0.0, 0.999])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_step_keeps_the_shape_and_the_brightness_and_passes_gradients(step, strength, channels):
    image = images_of(1, channels).requires_grad_()
    found = step(image, strength, 0.5, 0.999)
    assert found.shape == image.shape
    assert float(found.detach().mean()) == pytest.approx(float(image.detach().mean()), abs=0.05)
    (gradient,) = torch.autograd.grad(found.square().sum(), image)
    assert gradient.isfinite().all()
    assert gradient.abs().sum() > 0


def test_a_crop_is_a_part_of_the_image_at_its_size():
    rows = torch.linspace(0, 1, 40)[None, None, :, None].expand(1, 1, 40, 40)
    ends = [attacker_steps._cropped(rows, 0.0, place, 0.0)[0, 0, [0, -1], 0] for place in (0.0, 0.999)]
    torch.testing.assert_close(ends[0], torch.tensor([0.0, 0.4]), atol=0.02, rtol=0)
    torch.testing.assert_close(ends[1], torch.tensor([0.6, 1.0]), atol=0.02, rtol=0)


@pytest.mark.parametrize("name", ["_blurred", "_reread"])
def test_blur_and_smaller_sizes_take_short_waves_and_leave_long_ones(name):
    step = getattr(attacker_steps, name)
    strength = 0.999 if name == "_blurred" else 0.0
    left = {}
    for wavelength in (2.5, 40):
        wave = 0.5 + 0.25 * torch.sin(2 * np.pi / wavelength * torch.arange(80.0))[None, None, None].expand(
            1, 1, 80, 80
        )
        left[wavelength] = float(step(wave, strength, 0.0, 0.0).std() / wave.std())
    assert left[2.5] < 0.1
    assert left[40] > 0.9
