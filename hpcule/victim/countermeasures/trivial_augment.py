"""TrivialAugment: one random operation of random strength an image (Mueller and Hutter, ICCV 2021, arXiv 2103.10158).

With RandAugment's ranges: shears of up to 0.3, shifts of a third of the size, rotations of 30 degrees, factors of 0.1
to 1.9, 4 to 8 bits, any solarisation threshold.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from hpcule.data.source import Ids
from hpcule.data.strong import BRIGHTNESS, CONTRAST, SATURATION, adjust
from hpcule.world.keyed import uniform


def trivial_augment(images: Tensor, purpose: int, ids: Ids) -> Tensor:
    """Augment images [b, C, H, W] in [0, 1], each by an operation of its own."""
    draws = torch.from_numpy(uniform(purpose, ids, 3).copy())
    chosen = (draws[:, 0] * len(OPERATIONS)).long()
    signed = torch.where(draws[:, 2] < 0.5, -draws[:, 1], draws[:, 1])
    result = images.clone()
    for number in torch.unique(chosen).tolist():
        rows = torch.nonzero(chosen == number).flatten()
        index, strength = rows.to(images.device), signed[rows].to(images.device)[:, None, None, None]
        result[index] = OPERATIONS[number](images[index], strength)
    return result


def identity(images: Tensor, strength: Tensor) -> Tensor:
    """Return the images unchanged."""
    return images


def shear_x(images: Tensor, strength: Tensor) -> Tensor:
    """Rows move sideways the more, the farther they are from the middle."""
    return _moved(images, shear_x=0.3 * strength)


def shear_y(images: Tensor, strength: Tensor) -> Tensor:
    """Columns move likewise."""
    return _moved(images, shear_y=0.3 * strength)


def shift_x(images: Tensor, strength: Tensor) -> Tensor:
    """Sideways; black comes in."""
    return _moved(images, shift_x=2 / 3 * strength)


def shift_y(images: Tensor, strength: Tensor) -> Tensor:
    """Shift images up or down."""
    return _moved(images, shift_y=2 / 3 * strength)


def rotate(images: Tensor, strength: Tensor) -> Tensor:
    """Rotate images around their centre."""
    return _moved(images, angle=math.radians(30) * strength)


def brightness(images: Tensor, strength: Tensor) -> Tensor:
    """Blend images with black, or away from it."""
    return adjust(images, BRIGHTNESS, 1 + 0.9 * strength)


def contrast(images: Tensor, strength: Tensor) -> Tensor:
    """Blend images with their mean grey, or away from it."""
    return adjust(images, CONTRAST, 1 + 0.9 * strength)


def saturation(images: Tensor, strength: Tensor) -> Tensor:
    """Blend images with their greyscale version, or away from it."""
    return adjust(images, SATURATION, 1 + 0.9 * strength)


def adjust_sharpness(images: Tensor, strength: Tensor) -> Tensor:
    """Blend images with a smoothed version, or away from it; the outermost pixels stay unchanged."""
    kernel = torch.ones(3, 3, device=images.device, dtype=images.dtype)
    kernel[1, 1] = 5
    channels = images.shape[1]
    smooth = functional.conv2d(images, (kernel / 13).expand(channels, 1, 3, 3), groups=channels)
    blurred = images.clone()
    blurred[:, :, 1:-1, 1:-1] = smooth
    return (blurred + (1 + 0.9 * strength) * (images - blurred)).clamp(0, 1)


def posterize(images: Tensor, strength: Tensor) -> Tensor:
    """4 to 8 bits a value."""
    step = 2 ** (4 * strength.abs()).round()
    return (images * 255).div(step).floor().mul(step).div(255).clamp(0, 1)


def solarize(images: Tensor, strength: Tensor) -> Tensor:
    """Invert what is above a threshold."""
    return torch.where(images >= 1 - strength.abs(), 1 - images, images)


def autocontrast(images: Tensor, strength: Tensor) -> Tensor:
    """Stretch each channel over the whole range."""
    lowest, highest = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    stretched = (images - lowest) / (highest - lowest).clamp_min(1e-6)
    return torch.where(highest > lowest, stretched, images)


def equalize(images: Tensor, strength: Tensor) -> Tensor:
    """Each channel's value becomes the share of its pixels that are darker."""
    flat = images.flatten(2)
    ordered = flat.sort(dim=2).values
    darker = torch.searchsorted(ordered, flat.contiguous()).to(images.dtype)
    even = ordered[:, :, :1] == ordered[:, :, -1:]
    return torch.where(even, flat, darker / max(1, flat.shape[2] - 1)).view_as(images)


def _moved(images: Tensor, **by: Tensor) -> Tensor:
    """Look up each pixel where it comes from: rotated, sheared, and shifted by shares of half the size."""
    batch, _, height, width = images.shape
    zero = torch.zeros(batch, device=images.device)
    value = {name: amount.flatten() for name, amount in by.items()}
    angle, shear_x, shear_y = (value.get(name, zero) for name in ("angle", "shear_x", "shear_y"))
    # The grid's unit is half the height or width, so what mixes the two needs their ratio.
    matrix = torch.stack(
        [
            torch.stack([angle.cos(), (angle.sin() + shear_x) * height / width, value.get("shift_x", zero)], 1),
            torch.stack([(shear_y - angle.sin()) * width / height, angle.cos(), value.get("shift_y", zero)], 1),
        ],
        1,
    )
    grid = functional.affine_grid(matrix, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, mode="nearest", align_corners=False)


OPERATIONS: list[Callable[[Tensor, Tensor], Tensor]] = [
    identity,
    shear_x,
    shear_y,
    shift_x,
    shift_y,
    rotate,
    brightness,
    contrast,
    saturation,
    adjust_sharpness,
    posterize,
    solarize,
    autocontrast,
    equalize,
]
