"""FixMatch: a victim that knows few labels and trusts its own confident answers for the rest.

Sohn et al., NeurIPS 2020, arXiv 2001.07685. A number of samples of each class keep their labels. Every other sample
is seen twice: what the network answers confidently to a crop of it becomes the label of a strongly changed version.
Strong changes are two operations of TrivialAugment, which like RandAugment draws operation and strength at random,
and cutout. Weights are tested as they are, where the paper tests their running mean: the learning rate falls to 0
here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from hpcule.config.errors import UsageError
from hpcule.data.augment import CropFlip
from hpcule.data.source import Ids
from hpcule.tasks.task import Task
from hpcule.victim.countermeasures.augmentation import cutout
from hpcule.victim.countermeasures.trivial_augment import trivial_augment
from hpcule.victim.published import Published
from hpcule.world.keyed import bits, key, uniform

CONFIDENT = 0.95
"""Probability from which on an answer counts."""
UNLABELLED = 7
"""Samples a labelled one."""
CUTOUT = 50
"""Size of the cut-out square in per cent of the width."""


@dataclass(frozen=True)
class FewLabels:
    """Images of a step: `known` labelled ones, then n crops, then n strong versions of the same samples."""

    images: Tensor
    labels: Tensor
    """Labels of the labelled samples [known], then of the others [n], which the loss does not read."""
    known: int

    def loss(self, logits: Tensor, task: Task) -> Tensor:
        """Summed over the n samples: cross-entropy with confident answers, and with labels, each counting for seven."""
        named, crops, strong = self._parts(logits)
        confidence, answers = crops.detach().softmax(1).max(1)
        trusted = functional.cross_entropy(strong, answers, reduction="none") * (confidence >= CONFIDENT)
        labelled = task.losses(named, self.labels[: self.known]).sum()
        return trusted.sum() + UNLABELLED * labelled

    def recognised(self, logits: Tensor, task: Task) -> Tensor:
        """How many of the n samples are named right in their crops, float64."""
        return task.right(self._parts(logits)[1], self.labels[self.known :]).double().sum()

    def _parts(self, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        others = (len(logits) - self.known) // 2
        named, rest = logits[: self.known], logits[self.known :]
        return named, rest[:others], rest[others:]


class FixMatch:
    """Draws the batches of one victim."""

    def __init__(self, train: Published, each: int, seed: int) -> None:
        """Choose `each` labelled samples of every class, drawn from `seed`; more of them include fewer.

        Raises:
            UsageError: a class has fewer.
        """
        labels, purpose = train.labels.numpy(), key(seed, "fixmatch labels")
        drawn = []
        for label in np.unique(labels):
            own = np.flatnonzero(labels == label)
            if len(own) < each:
                raise UsageError(f"fixmatch-{each}: class {label} has {len(own)} samples")
            drawn.append(own[np.argsort(bits(purpose, train.ids[own], 1)[:, 0])][:each])
        self.labelled: Ids = np.concatenate(drawn)
        self._train, self._seed = train, seed

    def take(self, numbers: Ids, epoch: int, device: torch.device) -> FewLabels:
        """The samples `numbers`, and for every seventh of them, on average, a labelled one."""
        train, ids = self._train, self._train.ids[numbers]
        draws = uniform(key(self._seed, "fixmatch partners", epoch), ids, 2)
        chosen = draws[:, 0] < 1 / UNLABELLED
        partners = self.labelled[(draws[chosen, 1] * len(self.labelled)).astype(np.int64)]
        named, names = train.images(partners, device)
        images, labels = train.images(numbers, device)
        padding = max(1, images.shape[3] // 8)
        purposes = [key(self._seed, "fixmatch", epoch, part) for part in range(6)]
        named = CropFlip.draw(purposes[0], ids[chosen], padding).apply(named)
        crops, strong = (CropFlip.draw(purpose, ids, padding).apply(images) for purpose in purposes[1:3])
        for purpose in purposes[3:5]:
            strong = trivial_augment(strong, purpose, ids)
        strong = cutout(strong, CUTOUT, purposes[5], ids)
        return FewLabels(torch.cat([named, crops, strong]), torch.cat([names, labels]), len(partners))
