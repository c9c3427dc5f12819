"""How far a published image is from the clean one: PSNR, SSIM, largest and Euclidean change.

Everything is computed on what is published, rounded to the sample's own grid.
"""

from __future__ import annotations

import itertools
import math
from typing import NotRequired, TypedDict

import torch
from torch import Tensor

WINDOW = 11
SIGMA = 1.5
K1, K2 = 0.01, 0.03

TILE = 64
"""Positions of the window along a side that are worked on at once."""
SLICE = 2**18
"""Values that are worked on at once: SSIM holds a dozen float64 maps of them, which then still fit a cache."""


class VisibilityNumbers(TypedDict):
    """What `Visibility.result` returns; ready for JSON.

    `psnr_db` is the mean over the images that were changed, None where none was; `identical_share` is the share of the
    others. `linf_levels` is the largest change of any value, in levels; `l2_mean` the mean Euclidean length of an
    image's change with values in [0, 1]; `changed_share` the share of all values that changed; `n` the images seen.
    `resized` says that images are published at their own sizes, and were measured as a victim resizes them.
    `lpips_mean` and `lpips_max` are there where weights for LPIPS were given, of `lpips_n` images.
    """

    psnr_db: float | None
    identical_share: float
    ssim_mean: float
    ssim_min: float
    linf_levels: int
    l2_mean: float
    changed_share: float
    n: int
    resized: NotRequired[bool]
    lpips_mean: NotRequired[float]
    lpips_max: NotRequired[float]
    lpips_n: NotRequired[int]


def psnr(clean: Tensor, published: Tensor, levels: int) -> Tensor:
    """Peak signal-to-noise ratio of each image.

    Args:
        clean: uint8 or uint16 [n, C, H, W].
        published: the same shape and type.
        levels: the largest value of the grid, 255 or 65535; the peak.

    Returns:
        float64 [n] in dB; infinite where the two are identical.
    """
    mean_square = _squared_length(_difference(clean, published)) / clean[0].numel()
    return 20 * math.log10(levels) - 10 * mean_square.log10()


def linf(clean: Tensor, published: Tensor) -> Tensor:
    """Largest change of any value of each image, int64 [n], in levels. Arguments as in `psnr`."""
    return _difference(clean, published).abs().flatten(1).amax(1)


def ssim(clean: Tensor, published: Tensor, levels: int) -> Tensor:
    """Structural similarity of each image, averaged over channels and window positions.

    Wang, Bovik, Sheikh, Simoncelli, "Image quality assessment: from error visibility to structural similarity",
    IEEE TIP 2004: Gaussian window of 11 x 11 pixels with sigma 1.5, K1 = 0.01, K2 = 0.03, only positions where the
    whole window lies inside the image. An image under 11 pixels gets the largest odd window that fits.

    Args:
        clean: uint8 or uint16 [n, C, H, W].
        published: the same shape and type.
        levels: the largest value of the grid, 255 or 65535.

    Returns:
        float64 [n] in [-1, 1]; 1 where the two are identical.
    """
    height, width = clean.shape[2:]
    window = _gaussian(min(height, width), clean.device)
    total = torch.zeros(len(clean), dtype=torch.float64, device=clean.device)
    rows, columns = (_tiles(side, len(window)) for side in (height, width))
    for row, column in itertools.product(rows, columns):
        similarity = _similarity(clean[:, :, row, column], published[:, :, row, column], levels, window)
        total += similarity.flatten(1).sum(1)
    positions = (height - len(window) + 1) * (width - len(window) + 1)
    return total / (clean.shape[1] * positions)


def _similarity(clean: Tensor, published: Tensor, levels: int, window: Tensor) -> Tensor:
    """SSIM [n, C, H', W'] at every position of the window."""
    down, across = _band(window, clean.shape[2]), _band(window, clean.shape[3]).T
    x, y = (image.to(torch.float64).div(levels) for image in (clean, published))
    mean_x, mean_y, square_x, square_y, product = (down @ image @ across for image in (x, y, x * x, y * y, x * y))
    variances = (square_x - mean_x * mean_x) + (square_y - mean_y * mean_y)
    covariance = product - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + K1**2) / (mean_x * mean_x + mean_y * mean_y + K1**2)
    structure = (2 * covariance + K2**2) / (variances + K2**2)
    return luminance * structure


def _tiles(side: int, window: int) -> list[slice]:
    """Stretches of a side that hold every position of a window once: a banded matrix would grow with its square."""
    return [slice(start, min(start + TILE + window - 1, side)) for start in range(0, side - window + 1, TILE)]


class Visibility:
    """Visibility of a whole collection, batch by batch; memory grows neither with the collection nor with the batch."""

    def __init__(self, levels: int) -> None:
        """Start with no image seen; `levels` is the largest value of the grid, 255 or 65535."""
        self.levels = levels
        self._images = self._identical = self._values = self._changed = self._linf = 0
        self._psnr = self._ssim = self._l2 = 0.0
        self._ssim_min = math.inf

    def update(self, clean: Tensor, published: Tensor) -> None:
        """Add a batch: two tensors [n, C, H, W], uint8 or uint16; worked on in slices, so n may be large."""
        assert clean.shape == published.shape, f"shapes differ: {tuple(clean.shape)} and {tuple(published.shape)}"
        images = max(1, SLICE // clean[0].numel())
        for slices in zip(torch.split(clean, images), torch.split(published, images), strict=True):
            self._add(*slices)

    def result(self) -> VisibilityNumbers:
        """Return the numbers over all batches so far; at least one is needed."""
        assert self._images, "no batch was measured"
        changed_images = self._images - self._identical
        return {
            "psnr_db": self._psnr / changed_images if changed_images else None,
            "identical_share": self._identical / self._images,
            "ssim_mean": self._ssim / self._images,
            "ssim_min": self._ssim_min,
            "linf_levels": self._linf,
            "l2_mean": self._l2 / self._images,
            "changed_share": self._changed / self._values,
            "n": self._images,
        }

    def _add(self, clean: Tensor, published: Tensor) -> None:
        difference = _difference(clean, published)
        decibels = psnr(clean, published, self.levels)
        similarity = ssim(clean, published, self.levels)
        finite = decibels.isfinite()
        self._images += len(clean)
        self._identical += int((~finite).sum())
        self._psnr += float(decibels[finite].sum())
        self._ssim += float(similarity.sum())
        self._ssim_min = min(self._ssim_min, float(similarity.min()))
        self._l2 += float(_squared_length(difference).sqrt().sum()) / self.levels
        self._linf = max(self._linf, int(difference.abs().max()))
        self._changed += int(difference.count_nonzero())
        self._values += difference.numel()


def _difference(clean: Tensor, published: Tensor) -> Tensor:
    """Published minus clean in levels, int64: unsigned types would wrap around, and squares of 16 bit need 33 bits."""
    assert clean.shape == published.shape, f"shapes differ: {tuple(clean.shape)} and {tuple(published.shape)}"
    return published.to(torch.int64) - clean.to(torch.int64)


def _squared_length(difference: Tensor) -> Tensor:
    return difference.square().flatten(1).sum(1).to(torch.float64)


def _gaussian(side: int, device: torch.device) -> Tensor:
    """One-dimensional window, float64, that sums to 1: the two-dimensional one is its outer product."""
    size = min(WINDOW, side if side % 2 else side - 1)
    offset = torch.arange(size, dtype=torch.float64, device=device) - size // 2
    weight = torch.exp(-(offset**2) / (2 * SIGMA**2))
    return weight / weight.sum()


def _band(window: Tensor, side: int) -> Tensor:
    """Matrix [side - k + 1, side] that takes the weighted mean of every window inside a line.

    A banded product does several times the arithmetic of a convolution and takes a tenth of its time on small images.
    """
    size = len(window)
    band = window.new_zeros(side - size + 1, side)
    for start in range(side - size + 1):
        band[start, start : start + size] = window
    return band
