"""Countermeasures that mix pairs of a batch and their labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from hpcule.tasks.task import Task
from hpcule.victim.countermeasures.table import Applied
from hpcule.world.keyed import uniform

PROBABILITY = 0.5
"""Probability that a batch is mixed at all; other batches stay unchanged."""


@dataclass(frozen=True)
class Mixed:
    """A batch of which sample i has the target `targets[i]` by the share `share`, and `others[i]` by the rest.

    Of `versions` images of every sample, [versions * b, C, H, W], the one with the largest loss counts.
    """

    images: Tensor
    targets: Tensor
    others: Tensor
    share: float = 1.0
    versions: int = 1
    smoothing: float = 0.0
    """Share of every target that goes to all classes equally."""

    def loss(self, logits: Tensor, task: Task) -> Tensor:
        """The task's losses by the shares of the targets, summed over the samples."""
        losses = task.losses(logits, torch.cat([self.targets] * self.versions))
        if self.share < 1:
            others = task.losses(logits, torch.cat([self.others] * self.versions))
            losses = self.share * losses + (1 - self.share) * others
        if self.smoothing:
            losses = (1 - self.smoothing) * losses - self.smoothing * logits.log_softmax(1).mean(1)
        return losses.view(self.versions, -1).amax(0).sum()

    def recognised(self, logits: Tensor, task: Task) -> Tensor:
        """How many samples are answered right in their first version, parts of an answer counting as such: float64."""
        return task.right(logits[: len(self.targets)], self.targets).double().sum()


def mix(images: Tensor, targets: Tensor, steps: Sequence[Applied], purpose: int, versions: int = 1) -> Mixed:
    """Mix each sample of images [versions * b, C, H, W] with the next one, by one share drawn from `purpose`.

    The share is uniform in [0, 1), which is Beta(1, 1). Where several steps are given, one of them is drawn.
    """
    mixed = Mixed(images, targets, targets, versions=versions)
    if not steps:
        return mixed
    draws = uniform(purpose, np.zeros(1, np.int64), 5)[0]
    if draws[0] >= PROBABILITY:
        return mixed
    step = steps[int(draws[1] * len(steps))]
    partners = images.view(versions, -1, *images.shape[1:]).roll(1, 1).flatten(0, 1)
    others, share = targets.roll(1, 0), float(draws[2])
    if step.name == "mixup":
        return Mixed(share * images + (1 - share) * partners, targets, others, share, versions)
    return _cutmix(Mixed(images, targets, others, share, versions), partners, float(draws[3]), float(draws[4]))


def _cutmix(mixed: Mixed, partners: Tensor, row: float, column: float) -> Mixed:
    """A box of the partner at a random place; the share of the targets is that of the pixels that are left."""
    height, width = mixed.images.shape[2:]
    edge = math.sqrt(1 - mixed.share)
    centre, half = (int(row * height), int(column * width)), (edge * height / 2, edge * width / 2)
    top, bottom = max(0, round(centre[0] - half[0])), min(height, round(centre[0] + half[0]))
    left, right = max(0, round(centre[1] - half[1])), min(width, round(centre[1] + half[1]))
    images = mixed.images.clone()
    images[:, :, top:bottom, left:right] = partners[:, :, top:bottom, left:right]
    share = 1 - (bottom - top) * (right - left) / (height * width)
    return replace(mixed, images=images, share=share)
