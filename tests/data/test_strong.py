"""The strong augmentation against torchvision's functions with the same parameters."""

import numpy as np
import pytest
import torch

from hpcule.data.strong import BRIGHTNESS, CONTRAST, HUE, SATURATION, Strong, adjust, luma
from hpcule.world.keyed import key
from hpcule.world.torchvision_compat import declare_missing_operators

SIZE = (16, 12)


@pytest.fixture(scope="module")
def reference():
    """torchvision's functions on one image [C, H, W]."""
    declare_missing_operators()
    from torchvision.transforms.v2 import functional

    return functional


def images_of(count, channels=3):
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(count, channels, *SIZE, generator=generator)
    images[0] = images[0, :1]  # gray
    images[1] = 0.0
    images[2, :, :, :6] = 1.0
    return images


def slow(draw, images, functional):
    """One image and one operation after the other."""
    operations = {
        BRIGHTNESS: functional.adjust_brightness,
        CONTRAST: functional.adjust_contrast,
        SATURATION: functional.adjust_saturation,
        HUE: functional.adjust_hue,
    }
    results = []
    for number, image in enumerate(images):
        top, left, tall, wide = draw.box[number].tolist()
        image = functional.resized_crop(image, top, left, tall, wide, list(SIZE), antialias=True)
        if draw.flip[number]:
            image = functional.horizontal_flip(image)
        if draw.jitter[number]:
            for operation in draw.order[number].tolist():
                if len(image) == 3 or operation in (BRIGHTNESS, CONTRAST):
                    image = operations[operation](image, float(draw.factors[number, operation]))
        if draw.gray[number] and len(image) == 3:
            image = functional.rgb_to_grayscale(image, 3)
        results.append(image)
    return torch.stack(results)


@pytest.mark.parametrize("strength", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("channels", [3, 1])
def test_a_draw_gives_what_torchvision_gives(reference, strength, channels):
    images = images_of(64, channels)
    draw = Strong.draw(key(0, "test"), np.arange(64), SIZE, strength)
    torch.testing.assert_close(draw.apply(images), slow(draw, images, reference), rtol=0, atol=2e-5)


@pytest.mark.parametrize("operation", [BRIGHTNESS, CONTRAST, SATURATION, HUE])
def test_one_operation_alone(reference, operation):
    name = {BRIGHTNESS: "brightness", CONTRAST: "contrast", SATURATION: "saturation", HUE: "hue"}[operation]
    images = images_of(8)
    for factor in (-0.4, 0.0, 0.07, 0.5) if operation == HUE else (0.0, 0.6, 1.0, 1.4):
        found = adjust(images, operation, torch.full((8, 1, 1, 1), factor))
        expected = getattr(reference, f"adjust_{name}")(images, factor)
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)


def test_draws_are_those_of_the_recipe():
    count, strength = 20_000, 0.5
    draw = Strong.draw(key(1, "test"), np.arange(count), (32, 32), strength)
    top, left, tall, wide = draw.box.T
    assert ((tall >= 1) & (wide >= 1) & (top + tall <= 32) & (left + wide <= 32)).all()
    area = (tall * wide).double() / 1024
    assert area.min() > 0.5
    # Uniform in [0.55, 1], but for boxes that do not fit, which are the large and narrow ones.
    assert 0.7 < area.mean() < 0.775
    ratio = (wide / tall).log()
    assert ratio.abs().max() < np.log(4 / 3) + 0.1
    assert abs(ratio.mean()) < 0.01
    assert abs(draw.flip.float().mean() - 0.5) < 0.02
    assert abs(draw.jitter.float().mean() - 0.4) < 0.02
    assert abs(draw.gray.float().mean() - 0.1) < 0.01
    assert draw.factors[:, :3].min() >= 0.8
    assert draw.factors[:, :3].max() <= 1.2
    assert draw.factors[:, 3].abs().max() <= 0.05
    assert draw.factors[:, 3].abs().max() > 0.0499
    orders, times = np.unique(draw.order.numpy(), axis=0, return_counts=True)
    assert len(orders) == 24
    assert times.min() > 0.8 * count / 24


def test_a_draw_depends_on_the_key_and_the_id_alone():
    one = Strong.draw(key(2, "test"), np.array([5, 9, 700]), SIZE, 1.0)
    other = Strong.draw(key(2, "test"), np.array([700, 5]), SIZE, 1.0)
    for name in ("box", "flip", "jitter", "order", "factors", "gray"):
        torch.testing.assert_close(getattr(one, name)[[2, 0]], getattr(other, name), rtol=0, atol=0)
    again = Strong.draw(key(3, "test"), np.array([5, 9, 700]), SIZE, 1.0)
    assert not torch.equal(one.factors, again.factors)


def test_gradients_are_those_of_finite_differences():
    draw = Strong.draw(key(4, "test"), np.arange(12), SIZE, 1.0)
    images = (0.2 + 0.6 * images_of(12)).double().requires_grad_()
    weights = torch.rand(12, 3, *SIZE, generator=torch.Generator().manual_seed(1)).double()
    (gradient,) = torch.autograd.grad((draw.apply(images) * weights).sum(), images)
    direction = torch.randn(images.shape, generator=torch.Generator().manual_seed(2)).double()
    step = 1e-6
    with torch.no_grad():
        up, down = ((draw.apply(images + sign * step * direction) * weights).sum(dim=(1, 2, 3)) for sign in (1, -1))
    slopes = (gradient * direction).sum(dim=(1, 2, 3))
    # Gray and black images stand on a kink of hue.
    torch.testing.assert_close(slopes[3:], ((up - down) / (2 * step))[3:], rtol=1e-4, atol=1e-6)
    assert gradient.isfinite().all()


def test_luma_of_a_single_channel_is_the_channel():
    images = images_of(4, 1)
    assert torch.equal(luma(images), images)
