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


@dataclass(frozen=True)
class MirrorShift:
    """One draw of a shift with mirrored borders for each sample of a batch, and flips that alternate with the epochs.

    A sample that is flipped in one epoch is not in the next: two epochs show both of its sides, where independent flips
    show one side twice in half of the cases (Jordan 2024, https://arxiv.org/abs/2404.00498).

    Attributes:
        down, right: int64 [b], pixels.
        flip: bool [b].
        depth: slices of volumes, which lie one below the other and all move in one way; None for images.
    """

    down: Tensor
    right: Tensor
    flip: Tensor
    depth: int | None = None

    @classmethod
    def draw(cls, purpose: int, flips: int, ids: Ids, epoch: int, most: int, depth: int | None = None) -> MirrorShift:
        """Draw for these ids.

        Args:
            purpose: key of the shifts, another one in every epoch.
            flips: key of the first epoch's flips, the same in every epoch.
            ids: int64 [b].
            epoch: its number, whose parity turns the flips around.
            most: pixels of the largest shift in each direction.
            depth: slices of volumes.
        """
        shifts = (torch.from_numpy(uniform(purpose, ids, 2).copy()) * (2 * most + 1)).long() - most
        first = torch.from_numpy(uniform(flips, ids, 1)[:, 0] < 0.5)
        return cls(shifts[:, 0], shifts[:, 1], first ^ bool(epoch % 2), depth)

    def apply(self, images: Tensor) -> Tensor:
        """Shift and flip images [b, C, H, W] of any dtype; differentiable for floating point."""
        batch, channels, _, width = images.shape
        slices = images.reshape(batch, channels * (self.depth or 1), -1, width)
        rows = _mirrored(torch.arange(slices.shape[2]) + self.down[:, None], slices.shape[2])
        columns = _mirrored(torch.arange(width) + self.right[:, None], width)
        columns = torch.where(self.flip[:, None], columns.flip(1), columns)
        places = (rows[:, :, None] * width + columns[:, None, :]).flatten(1).to(images.device)
        moved = slices.flatten(2).gather(2, places[:, None].expand(-1, slices.shape[1], -1))
        return moved.view_as(images)


def _mirrored(places: Tensor, size: int) -> Tensor:
    """Places outside 0..size-1 as a mirror on the outermost pixel shows them."""
    last = size - 1
    return last - (last - places.abs()).abs() if last else torch.zeros_like(places)
