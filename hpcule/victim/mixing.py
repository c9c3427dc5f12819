"""Countermeasures that mix pairs of a batch and their labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor
from torch.nn import functional

from hpcule.data.keyed import uniform
from hpcule.victim.countermeasures import Applied

PROBABILITY = 0.5
"""Of mixing a batch at all; the others stay as they are."""


@dataclass(frozen=True)
class Mixed:
    """A batch whose sample i is of class `labels[i]` by the share `share`, and of class `others[i]` by the rest."""

    images: Tensor
    labels: Tensor
    others: Tensor
    share: float = 1.0

    def loss(self, logits: Tensor) -> Tensor:
        """Cross-entropy with the labels by their shares, summed over the batch."""
        first = functional.cross_entropy(logits, self.labels, reduction="sum")
        if self.share == 1:
            return first
        return self.share * first + (1 - self.share) * functional.cross_entropy(logits, self.others, reduction="sum")


def mix(images: Tensor, labels: Tensor, steps: Sequence[Applied], purpose: int) -> Mixed:
    """Mix each sample of images [b, C, H, W] with the next one of the batch, by one share drawn from `purpose`.

    The share is uniform in [0, 1), which is Beta(1, 1). Where several steps are given, one of them is drawn.
    """
    mixed = Mixed(images, labels, labels)
    if not steps:
        return mixed
    draws = uniform(purpose, np.zeros(1, np.int64), 5)[0]
    if draws[0] >= PROBABILITY:
        return mixed
    step = steps[int(draws[1] * len(steps))]
    partners, others = images.roll(1, 0), labels.roll(1, 0)
    share = float(draws[2])
    if step.name == "mixup":
        return Mixed(share * images + (1 - share) * partners, labels, others, share)
    return _cutmix(Mixed(images, labels, others, share), partners, float(draws[3]), float(draws[4]))


def _cutmix(mixed: Mixed, partners: Tensor, row: float, column: float) -> Mixed:
    """A box of the partner at a random place; the share of the labels is that of the pixels that are left."""
    height, width = mixed.images.shape[2:]
    edge = math.sqrt(1 - mixed.share)
    centre, half = (int(row * height), int(column * width)), (edge * height / 2, edge * width / 2)
    top, bottom = max(0, round(centre[0] - half[0])), min(height, round(centre[0] + half[0]))
    left, right = max(0, round(centre[1] - half[1])), min(width, round(centre[1] + half[1]))
    images = mixed.images.clone()
    images[:, :, top:bottom, left:right] = partners[:, :, top:bottom, left:right]
    return Mixed(images, mixed.labels, mixed.others, 1 - (bottom - top) * (right - left) / (height * width))
