"""Differentiable copies of what attackers do to images before they train on them, so that a craft can see past it."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from hpcule.craft.parts.differentiable_jpeg import compressed
from hpcule.data.source import Ids
from hpcule.data.strong import luma
from hpcule.world.keyed import uniform

JPEG_QUALITIES = (50, 90)
BLUR_PIXELS = (0.5, 2.0)
"""Standard deviation of the blur."""
SMALLEST_SHARE = 0.4
"""Least share of the height and of the width at which an image is read, or which a crop keeps."""


def disturbed(images: Tensor, purpose: int, ids: Ids) -> Tensor:
    """Each image after one step of an attacker, which its id draws: none, grey, JPEG, blur, another size, or a crop.

    Args:
        images: [n, 1 or 3, H, W] in [0, 1].
        purpose: key of the draw; the same (purpose, id) always draws the same.
        ids: of the images.
    """
    draws = uniform(purpose, ids, 4).tolist()
    parts = [
        _STEPS[int(step * len(_STEPS))](image, *how) for image, (step, *how) in zip(images[:, None], draws, strict=True)
    ]
    return torch.cat(parts)


def _unchanged(image: Tensor, strength: float, row: float, column: float) -> Tensor:
    return image


def _grey(image: Tensor, strength: float, row: float, column: float) -> Tensor:
    return luma(image).expand_as(image)


def _recompressed(image: Tensor, strength: float, row: float, column: float) -> Tensor:
    return compressed(image, round(_between(JPEG_QUALITIES, strength)))


def _blurred(image: Tensor, strength: float, row: float, column: float) -> Tensor:
    """Blur over three standard deviations each way, with mirrored borders."""
    deviation = _between(BLUR_PIXELS, strength)
    reach = min(math.ceil(3 * deviation), min(image.shape[2:]) - 1)
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device=image.device) / deviation) ** 2)
    kernel /= kernel.sum()
    # Channels as a batch of single ones.
    padded = functional.pad(image, (reach,) * 4, mode="reflect").transpose(0, 1)
    blurred = functional.conv2d(functional.conv2d(padded, kernel[None, None, None]), kernel[None, None, :, None])
    return blurred.transpose(0, 1)


def _reread(image: Tensor, strength: float, row: float, column: float) -> Tensor:
    """Shrink and enlarge again."""
    return _scaled(_scaled(image, _shares(image, strength)), list(image.shape[2:]))


def _cropped(image: Tensor, strength: float, row: float, column: float) -> Tensor:
    """Cut a part of the image's proportions out of it, and enlarge that to the whole size."""
    height, width = _shares(image, strength)
    top, left = (
        int(place * (size - part + 1))
        for place, size, part in zip((row, column), image.shape[2:], (height, width), strict=True)
    )
    return _scaled(image[..., top : top + height, left : left + width], list(image.shape[2:]))


def _shares(image: Tensor, strength: float) -> list[int]:
    """Height and width of a smaller image."""
    share = _between((SMALLEST_SHARE, 1.0), strength)
    return [max(1, round(share * side)) for side in image.shape[2:]]


def _scaled(image: Tensor, size: list[int]) -> Tensor:
    return functional.interpolate(image, size, mode="bilinear", align_corners=False, antialias=True)


def _between(ends: tuple[float, float], strength: float) -> float:
    return ends[0] + (ends[1] - ends[0]) * strength


_STEPS: tuple[Callable[[Tensor, float, float, float], Tensor], ...] = (
    _unchanged,
    _grey,
    _recompressed,
    _blurred,
    _reread,
    _cropped,
)
