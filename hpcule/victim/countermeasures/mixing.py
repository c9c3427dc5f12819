"""Countermeasures that mix pairs of a batch and their labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor
from torch.nn import functional

from hpcule.victim.countermeasures.table import Applied
from hpcule.world.keyed import uniform

PROBABILITY = 0.5
"""Probability that a batch is mixed at all; other batches stay unchanged."""


@dataclass(frozen=True)
class Mixed:
    """A batch whose sample i is of class `labels[i]` by the share `share`, and of class `others[i]` by the rest.

    Of `versions` images of every sample, [versions * b, C, H, W], the one with the largest loss counts.
    """

    images: Tensor
    labels: Tensor
    others: Tensor
    share: float = 1.0
    versions: int = 1

    def loss(self, logits: Tensor) -> Tensor:
        """Cross-entropy with the labels by their shares, summed over the samples."""
        losses = functional.cross_entropy(logits, self.labels.repeat(self.versions), reduction="none")
        if self.share < 1:
            others = functional.cross_entropy(logits, self.others.repeat(self.versions), reduction="none")
            losses = self.share * losses + (1 - self.share) * others
        return losses.view(self.versions, -1).amax(0).sum()

    def recognised(self, logits: Tensor) -> Tensor:
        """How many samples are named by their labels, in their first version."""
        return (logits[: len(self.labels)].argmax(1) == self.labels).sum()


def mix(images: Tensor, labels: Tensor, steps: Sequence[Applied], purpose: int, versions: int = 1) -> Mixed:
    """Mix each sample of images [versions * b, C, H, W] with the next one, by one share drawn from `purpose`.

    The share is uniform in [0, 1), which is Beta(1, 1). Where several steps are given, one of them is drawn.
    """
    mixed = Mixed(images, labels, labels, versions=versions)
    if not steps:
        return mixed
    draws = uniform(purpose, np.zeros(1, np.int64), 5)[0]
    if draws[0] >= PROBABILITY:
        return mixed
    step = steps[int(draws[1] * len(steps))]
    partners = images.view(versions, -1, *images.shape[1:]).roll(1, 1).flatten(0, 1)
    others, share = labels.roll(1, 0), float(draws[2])
    if step.name == "mixup":
        return Mixed(share * images + (1 - share) * partners, labels, others, share, versions)
    return _cutmix(Mixed(images, labels, others, share, versions), partners, float(draws[3]), float(draws[4]))


def _cutmix(mixed: Mixed, partners: Tensor, row: float, column: float) -> Mixed:
    """A box of the partner at a random place; the share of the labels is that of the pixels that are left."""
    height, width = mixed.images.shape[2:]
    edge = math.sqrt(1 - mixed.share)
    centre, half = (int(row * height), int(column * width)), (edge * height / 2, edge * width / 2)
    top, bottom = max(0, round(centre[0] - half[0])), min(height, round(centre[0] + half[0]))
    left, right = max(0, round(centre[1] - half[1])), min(width, round(centre[1] + half[1]))
    images = mixed.images.clone()
    images[:, :, top:bottom, left:right] = partners[:, :, top:bottom, left:right]
    share = 1 - (bottom - top) * (right - left) / (height * width)
    return replace(mixed, images=images, share=share)
