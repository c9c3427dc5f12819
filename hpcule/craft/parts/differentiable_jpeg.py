"""A copy of JPEG through which gradients pass: baseline coding as libjpeg does it by default, without the files.

Colour is coded as brightness and two differences of colour at half the size (4:2:0), each in blocks of 8 x 8 pixels by
the discrete cosine transform, whose coefficients are rounded to multiples that grow as quality falls. What is rounded
passes its gradient on as it is (straight through).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

BLOCK = 8
LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
"""Steps of the coefficients of brightness at quality 50 (ITU-T T.81, table K.1)."""
CHROMINANCE = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * BLOCK,) * 4,
)
"""The same for differences of colour (table K.2)."""
YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
"""Weights of red, green and blue in brightness and in the differences of blue and of red, around 0 (JFIF)."""
RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136, -0.714136), (1.0, 1.772, 0.0))


def compressed(images: Tensor, quality: int) -> Tensor:
    """Images [n, 1 or 3, H, W] in [0, 1] as they come back from JPEG of a quality from 1 to 100, of the same shape."""
    values = _rounded(255 * images)
    decoded = _grey(values, quality) if images.shape[1] == 1 else _coloured(values, quality)
    return _rounded(decoded.clamp(0, 255)) / 255


def _grey(values: Tensor, quality: int) -> Tensor:
    height, width = values.shape[2:]
    return _coded(_padded(values, BLOCK), LUMINANCE, quality)[..., :height, :width]


def _coloured(values: Tensor, quality: int) -> Tensor:
    height, width = values.shape[2:]
    brightness, *differences = _rounded(_mixed(_padded(values, 2 * BLOCK), YCC)).chunk(3, 1)
    halves = _rounded(functional.avg_pool2d(torch.cat(differences, 1), 2))
    # Coded around 0 where brightness is coded around 128, which makes the differences' 128 disappear.
    halves = _coded(halves + 128, CHROMINANCE, quality) - 128
    halves = halves[..., : math.ceil(height / 2), : math.ceil(width / 2)]
    whole = functional.interpolate(halves, scale_factor=2, mode="bilinear", align_corners=False)
    parts = (_coded(brightness, LUMINANCE, quality), whole)
    return _mixed(torch.cat([part[..., :height, :width] for part in parts], 1), RGB)


def _coded(planes: Tensor, steps: tuple[tuple[int, ...], ...], quality: int) -> Tensor:
    """Planes [n, c, H, W] in levels, of whole blocks, after the coefficients of each block were rounded."""
    count, channels, height, width = planes.shape
    cosines, multiples = _cosines(planes), _multiples(planes, steps, quality)
    blocks = (planes - 128).view(count, channels, height // BLOCK, BLOCK, width // BLOCK, BLOCK).transpose(3, 4)
    coefficients = _rounded(cosines @ blocks @ cosines.T / multiples) * multiples
    decoded = (cosines.T @ coefficients @ cosines).transpose(3, 4).reshape(planes.shape)
    return _rounded((decoded + 128).clamp(0, 255))


def _cosines(like: Tensor) -> Tensor:
    """The orthonormal cosine transform of a block's side [8, 8]."""
    places = torch.arange(BLOCK, dtype=like.dtype, device=like.device)
    cosines = torch.cos(math.pi / BLOCK * places[:, None] * (places + 0.5)) * math.sqrt(2 / BLOCK)
    cosines[0] *= math.sqrt(0.5)
    return cosines


def _multiples(like: Tensor, steps: tuple[tuple[int, ...], ...], quality: int) -> Tensor:
    """What the coefficients of a block are rounded to multiples of [8, 8], scaled by quality as libjpeg does."""
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    scaled = (torch.tensor(steps, device=like.device) * percent + 50).div(100, rounding_mode="floor")
    return scaled.clamp(1, 255).to(like.dtype)


def _mixed(values: Tensor, weights: tuple[tuple[float, ...], ...]) -> Tensor:
    """Linear combinations of the channels [n, 3, H, W]."""
    return torch.einsum("nchw,dc->ndhw", values, torch.tensor(weights, dtype=values.dtype, device=values.device))


def _padded(values: Tensor, multiple: int) -> Tensor:
    """Images whose last row and column are repeated up to a multiple of that many pixels."""
    height, width = values.shape[2:]
    return functional.pad(values, (0, -width % multiple, 0, -height % multiple), mode="replicate")


def _rounded(values: Tensor) -> Tensor:
    """Whole numbers, whose gradient is that of the values themselves."""
    return values + (values.round() - values).detach()
