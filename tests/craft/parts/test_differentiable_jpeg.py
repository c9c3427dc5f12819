"""The differentiable JPEG against Pillow's."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from hpcule.craft.parts.differentiable_jpeg import compressed


def smooth(channels, height, width):
    rows, columns = np.mgrid[:height, :width]
    waves = [np.sin(rows / (5 + c)) * np.cos(columns / (9 - c)) for c in range(channels)]
    return np.rint(128 + 100 * np.stack(waves)).astype(np.uint8)


def random(channels, height, width):
    return np.random.default_rng(0).integers(0, 256, (channels, height, width), dtype=np.uint8)


def by_pillow(image, quality):
    file = io.BytesIO()
    values = np.moveaxis(image, 0, -1) if len(image) == 3 else image[0]
    Image.fromarray(values).save(file, "JPEG", quality=quality)
    found = np.asarray(Image.open(file)).astype(np.float64)
    return np.moveaxis(found, -1, 0) if len(image) == 3 else found[None]


@pytest.mark.parametrize("make", [smooth, random])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("height", "width"), [(64, 48), (37, 51)])
@pytest.mark.parametrize("quality", [30, 50, 90])
def test_it_decodes_what_pillow_decodes(make, channels, height, width, quality):
    image = make(channels, height, width)
    found = 255 * compressed(torch.from_numpy(image)[None] / 255, quality)[0].double().numpy()
    expected = by_pillow(image, quality)
    # Whole numbers have many coefficients half way between two multiples, which fall to one side or the other.
    assert np.abs(found - expected).mean() < 2
    assert np.linalg.norm(found - expected) < 0.6 * np.linalg.norm(image - expected), "compression changes more"


def test_images_of_a_batch_do_not_touch_each_other():
    images = torch.from_numpy(np.stack([smooth(3, 20, 20), random(3, 20, 20)])) / 255
    both = compressed(images, 60)
    for image, found in zip(images, both, strict=True):
        torch.testing.assert_close(compressed(image[None], 60)[0], found)


def test_gradients_pass_as_if_nothing_was_rounded():
    """Of grey images that is the identity: the cosine transform there and back."""
    image = (torch.from_numpy(random(1, 16, 16))[None] / 255 * 0.2 + 0.4).requires_grad_()
    weights = torch.rand(1, 1, 16, 16)
    (weights * compressed(image, 90)).sum().backward()
    torch.testing.assert_close(image.grad, weights, rtol=1e-4, atol=1e-4)
