"""Random clouds over images: brightness and contrast that change smoothly from place to place."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from hpcule.data.source import Ids
from hpcule.world.keyed import uniform

ROUGHNESS, INTENSITY = (0.3, 0.7), (0.5, 1.0)


def plasma_brightness(images: Tensor, purpose: int, ids: Ids) -> Tensor:
    """Add clouds of -1 to 1 times a random intensity to images [b, C, H, W] in [0, 1], each channel its own."""
    low, high = INTENSITY
    intensity = low + (high - low) * _draws(purpose ^ 1, ids, images)
    return (images + intensity * (2 * clouds(images, purpose, ids) - 1)).clamp(0, 1)


def plasma_contrast(images: Tensor, purpose: int, ids: Ids) -> Tensor:
    """Multiply the distance from mid-grey by clouds of 0 to 4."""
    return ((images - 0.5) * 4 * clouds(images, purpose, ids) + 0.5).clamp(0, 1)


def clouds(images: Tensor, purpose: int, ids: Ids) -> Tensor:
    """Fractal noise [b, C, H, W] in [0, 1] of images' shape, by midpoint displacement (diamond-square).

    Each level of detail is `roughness` times as strong as the one before it.
    """
    batch, channels, height, width = images.shape
    levels = max(1, (max(height, width) - 1).bit_length())
    low, high = ROUGHNESS
    roughness = low + (high - low) * _draws(purpose ^ 2, ids, images)
    sizes = [(2**level + 1) ** 2 for level in range(levels + 1)]
    values = torch.from_numpy(uniform(purpose, ids, channels * sum(sizes))).to(images.device)
    noise = torch.split((2 * values - 1).view(batch, channels, -1), sizes, dim=2)
    grid = noise[0].view(batch, channels, 2, 2)
    for level in range(1, levels + 1):
        grid = _refined(grid, roughness**level * noise[level].view(batch, channels, 2**level + 1, 2**level + 1))
    grid = grid[:, :, :height, :width]
    lowest, highest = grid.amin((2, 3), keepdim=True), grid.amax((2, 3), keepdim=True)
    result: Tensor = (grid - lowest) / (highest - lowest).clamp_min(1e-6)
    return result


def _refined(grid: Tensor, noise: Tensor) -> Tensor:
    """Twice as fine: centres of squares from their corners, then edges from their four neighbours, mirrored outside."""
    fine = torch.zeros_like(noise)
    fine[:, :, ::2, ::2] = grid
    corners = grid[:, :, :-1, :-1] + grid[:, :, 1:, :-1] + grid[:, :, :-1, 1:] + grid[:, :, 1:, 1:]
    fine[:, :, 1::2, 1::2] = corners / 4 + noise[:, :, 1::2, 1::2]
    around = functional.pad(fine, (1, 1, 1, 1), mode="reflect")
    crosses = around[:, :, :-2, 1:-1] + around[:, :, 2:, 1:-1] + around[:, :, 1:-1, :-2] + around[:, :, 1:-1, 2:]
    for rows, columns in ((slice(0, None, 2), slice(1, None, 2)), (slice(1, None, 2), slice(0, None, 2))):
        fine[:, :, rows, columns] = crosses[:, :, rows, columns] / 4 + noise[:, :, rows, columns]
    return fine


def _draws(purpose: int, ids: Ids, images: Tensor) -> Tensor:
    """One uniform value [b, 1, 1, 1] a sample."""
    return torch.from_numpy(uniform(purpose, ids, 1).copy()).to(images.device)[:, :, None, None]
