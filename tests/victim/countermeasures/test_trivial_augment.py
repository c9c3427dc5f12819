"""Each operation beside torchvision's for the same parameters."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hpcule.victim.countermeasures import trivial_augment as ours
from hpcule.world.torchvision_compat import declare_missing_operators

declare_missing_operators()
from torchvision.transforms import InterpolationMode  # noqa: E402
from torchvision.transforms import functional as theirs  # noqa: E402

NEAREST = InterpolationMode.NEAREST


def images(n=6, shape=(3, 20, 16)):
    """On the grid of 8 bits, where torchvision's integer operations are at home."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, *shape), generator=generator).float() / 255


def strengths(value, n=6):
    return torch.full((n, 1, 1, 1), value)


def affine(image, angle=0.0, translate=(0, 0), shear=(0.0, 0.0)):
    return theirs.affine(image, angle, list(translate), 1.0, list(shear), NEAREST, fill=[0.0])


@pytest.mark.parametrize("s", [0.5, -0.75, 1.0])
@pytest.mark.parametrize(
    ("operation", "reference"),
    [
        (ours.brightness, lambda x, s: theirs.adjust_brightness(x, 1 + 0.9 * s)),
        (ours.contrast, lambda x, s: theirs.adjust_contrast(x, 1 + 0.9 * s)),
        (ours.saturation, lambda x, s: theirs.adjust_saturation(x, 1 + 0.9 * s)),
        (ours.adjust_sharpness, lambda x, s: theirs.adjust_sharpness(x, 1 + 0.9 * s)),
        (ours.solarize, lambda x, s: theirs.solarize(x, 1 - abs(s))),
        (ours.autocontrast, lambda x, s: theirs.autocontrast(x)),
    ],
)
def test_colours(operation, reference, s):
    values = images() * 0.8 + 0.1
    expected = torch.stack([reference(value, s) for value in values])
    torch.testing.assert_close(operation(values, strengths(s)), expected, atol=2e-3, rtol=0)


@pytest.mark.parametrize("bits", [4, 5, 6, 7, 8])
def test_posterize(bits):
    values = images()
    expected = theirs.posterize((values * 255).round().byte(), bits).float() / 255
    torch.testing.assert_close(ours.posterize(values, strengths((8 - bits) / 4)), expected)


def test_equalize_flattens_the_histogram():
    # The reference counts in whole steps of pixels a value, which distorts small images.
    values = images(shape=(3, 128, 128)) * 0.3 + 0.2
    found = ours.equalize(values, strengths(1.0))
    byte = (values * 255).round().byte()
    expected = torch.stack([theirs.equalize(value) for value in byte]).float() / 255
    assert (found - expected).abs().mean() < 0.02
    flat = torch.full((2, 3, 4, 4), 0.4)
    assert torch.equal(ours.equalize(flat, strengths(1.0, 2)), flat)


@pytest.mark.parametrize("s", [0.6, -1.0])
@pytest.mark.parametrize(
    ("operation", "reference"),
    [
        (ours.rotate, lambda x, s: theirs.rotate(x, -30 * s, NEAREST, fill=[0.0])),
        (ours.shift_x, lambda x, s: affine(x, translate=(-s * 16 / 3, 0))),
        (ours.shift_y, lambda x, s: affine(x, translate=(0, -s * 20 / 3))),
    ],
)
def test_movements(operation, reference, s):
    """Nearest pixels: a rounding on the border between two may go the other way."""
    values = images()
    expected = torch.stack([reference(value, s) for value in values])
    differing = (operation(values, strengths(s)) != expected).float().mean().item()
    other_way = (operation(values, strengths(-s)) != expected).float().mean().item()
    assert min(differing, other_way) < 0.1


def test_shears_move_the_edges_and_keep_the_middle():
    values = images(shape=(1, 21, 21))
    for operation, axis in ((ours.shear_x, 2), (ours.shear_y, 3)):
        found = operation(values, strengths(1.0))
        assert torch.equal(found.select(axis, 10), values.select(axis, 10))
        # At the edge by 0.3 times 10 pixels.
        assert torch.equal(found.select(axis, 20)[..., :-3], values.select(axis, 20)[..., 3:])
        assert torch.equal(found.select(axis, 0)[..., 3:], values.select(axis, 0)[..., :-3])


def test_every_image_has_an_operation_of_its_own():
    ids = np.arange(300, dtype=np.int64)
    values = images(300, (3, 8, 8))
    found = ours.trivial_augment(values, 3, ids)
    assert found.min() >= 0
    assert found.max() <= 1
    changed = (found != values).flatten(1).any(1)
    assert 0.75 < changed.float().mean() < 0.97
    assert torch.equal(ours.trivial_augment(values[50:60], 3, ids[50:60]), found[50:60])
