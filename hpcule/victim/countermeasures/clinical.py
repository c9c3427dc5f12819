"""Random changes that training chains of medical imaging draw again in every epoch, and two of attacks on protections.

Gamma, brightness, contrast, rotation and scale have about the ranges of nnU-Net's default chain (Isensee et al., Nature
Methods 2021, arXiv 1904.08128).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from hpcule.data.source import Ids
from hpcule.data.strong import BRIGHTNESS, CONTRAST, SATURATION, adjust
from hpcule.world.keyed import normal, uniform

SCALES = (0.85, 1.25)
FACTORS = (0.75, 1.25)
"""Range of the factors of brightness and of contrast."""
CENTRE, DEVIATION = 2.5, 0.1
"""Mean of the middle value of a sharpening kernel, and the standard deviation of each of its values."""


def random_gamma(images: Tensor, strength: float, purpose: int, ids: Ids) -> Tensor:
    """Raise each image, within its own range, to a power of 0.7 to 1.5, which is below 1 half of the time."""
    (draws,) = _uniform(purpose, ids, 1, images)
    powers = torch.where(draws < 0.5, 0.7 + 0.6 * draws, 0.5 + draws)
    lowest, highest = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
    span = highest - lowest
    return (lowest + span * ((images - lowest) / span.clamp_min(1e-6)).pow(powers)).clamp(0, 1)


def gaussian_noise(images: Tensor, deviation: float, purpose: int, ids: Ids) -> Tensor:
    """Add to every value noise of this standard deviation, in levels of 255."""
    noise = normal(purpose, ids, images[0].numel()).astype(np.float32)
    return (images + deviation / 255 * torch.from_numpy(noise).to(images.device).view_as(images)).clamp(0, 1)


def rotate_and_scale(images: Tensor, degrees: float, purpose: int, ids: Ids) -> Tensor:
    """Rotate by up to this angle and scale by 0.85 to 1.25 around the centre, bilinear; black comes in."""
    turns, scales = (draws.flatten() for draws in _uniform(purpose, ids, 2, images))
    angles = math.radians(degrees) * (2 * turns - 1)
    cosines, sines = (wave / _between(SCALES, scales) for wave in (angles.cos(), angles.sin()))
    height, width = images.shape[2:]
    # The grid's unit is half the height or width, so what mixes the two needs their ratio.
    rows = [(cosines, sines * height / width), (-sines * width / height, cosines)]
    matrix = torch.stack([torch.stack([*row, torch.zeros_like(cosines)], 1) for row in rows], 1)
    grid = functional.affine_grid(matrix, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, mode="bilinear", align_corners=False)


def brightness_and_contrast(images: Tensor, strength: float, purpose: int, ids: Ids) -> Tensor:
    """Multiply values, and then their distance from the mean, by 0.75 to 1.25."""
    bright, wide = (_between(FACTORS, draws) for draws in _uniform(purpose, ids, 2, images))
    return adjust(adjust(images, BRIGHTNESS, bright), CONTRAST, wide)


def random_sharpening(images: Tensor, strength: float, purpose: int, ids: Ids) -> Tensor:
    """Convolve with a kernel of five values around 2.5 in the middle and -0.375 at its four neighbours."""
    draws = torch.from_numpy(normal(purpose, ids, 5).astype(np.float32)).to(images.device)
    deviations = DEVIATION * draws.T[:, :, None, None, None]
    middle = CENTRE + deviations[0]
    padded = functional.pad(images, (1, 1, 1, 1), mode="replicate")
    inner = slice(1, -1)
    places = [(slice(-2), inner), (slice(2, None), inner), (inner, slice(-2)), (inner, slice(2, None))]
    result = middle * images
    for deviation, (rows, columns) in zip(deviations[1:], places, strict=True):
        result = result + ((1 - middle) / 4 + deviation) * padded[:, :, rows, columns]
    return result.clamp(0, 1)


def random_grayscale(images: Tensor, percent: float, purpose: int, ids: Ids) -> Tensor:
    """Take the colours from this percentage of the images, on average."""
    (draws,) = _uniform(purpose, ids, 1, images)
    return adjust(images, SATURATION, (draws >= percent / 100).float())


def _uniform(purpose: int, ids: Ids, count: int, images: Tensor) -> list[Tensor]:
    """Random values in [0, 1) [b, 1, 1, 1] for each image, a number of times."""
    draws = torch.from_numpy(uniform(purpose, ids, count).copy()).to(images.device)
    return list(draws.T[:, :, None, None, None])


def _between(ends: tuple[float, float], shares: Tensor) -> Tensor:
    return ends[0] + (ends[1] - ends[0]) * shares
