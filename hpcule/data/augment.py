"""Batched augmentation on the device, with draws that are keyed by sample id."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from hpcule.data.source import Ids
from hpcule.world.keyed import uniform


@dataclass(frozen=True)
class CropFlip:
    """One draw of a padded random crop and a horizontal flip for each sample of a batch.

    Attributes:
        rows, columns: int64 [b], the crop's corner in the padded image, 0..2 * padding.
        flip: bool [b].
        padding: zeros added on each side.
        depth: slices of volumes, which lie one below the other and are all cropped in one way; None for images.
    """

    rows: Tensor
    columns: Tensor
    flip: Tensor
    padding: int
    depth: int | None = None

    @classmethod
    def draw(cls, purpose: int, ids: Ids, padding: int, depth: int | None = None) -> CropFlip:
        """Draw for these ids; the same (purpose, id) always gives the same crop."""
        values = torch.from_numpy(uniform(purpose, ids, 3).copy())
        corners = (values[:, :2] * (2 * padding + 1)).long()
        return cls(corners[:, 0], corners[:, 1], values[:, 2] < 0.5, padding, depth)

    def apply(self, images: Tensor) -> Tensor:
        """Crop and flip images [b, C, H, W] of any dtype; differentiable for floating point."""
        if self.depth is not None:
            count, channels, _, width = images.shape
            slices = images.reshape(count, channels * self.depth, -1, width)
            return self._cropped(slices).view_as(images)
        return self._cropped(images)

    def _cropped(self, images: Tensor) -> Tensor:
        batch, channels, height, width = images.shape
        device = images.device
        padded = functional.pad(images, (self.padding,) * 4)
        rows = self.rows.to(device)[:, None] + torch.arange(height, device=device)
        columns = self.columns.to(device)[:, None] + torch.arange(width, device=device)
        columns = torch.where(self.flip.to(device)[:, None], columns.flip(1), columns)
        sample = torch.arange(batch, device=device)[:, None, None, None]
        channel = torch.arange(channels, device=device)[None, :, None, None]
        return padded[sample, channel, rows[:, None, :, None], columns[:, None, None, :]]
