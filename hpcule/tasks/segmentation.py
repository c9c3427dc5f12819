"""A class for every pixel."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from hpcule.config.errors import DataError
from hpcule.data.annotations import BACKGROUND, VOID, mask_blocks
from hpcule.data.source import Ids, Source
from hpcule.tasks.task import Sums, Task
from hpcule.world.group import World

_SMOOTH = 1.0
"""Pixels that are added to both sides of a Dice coefficient, so that a class that is nowhere has no gradient of its
own."""


class Segmentation(Task):
    """Name the class of every pixel: cross-entropy and Dice loss, and the mean intersection over union of classes.

    Pixels of no class count neither in the loss nor in a measure, and the background is a class like others in the
    loss only.
    """

    name = "segmentation"
    title = "segmentation"
    measure = "mean IoU"
    answers = "pixels"

    def __init__(self, source: Source) -> None:
        """See `Task`."""
        if source.masks is None:
            raise DataError(f"{source.name} has no masks: put images/NAME and masks/NAME into the folder")
        self._names = source.masks.names
        self.outputs = len(self._names)
        if len(self._counted) < 1 or self.outputs < 2:
            raise DataError(f"{source.name}: masks with the class {self._names[0]} alone leave nothing to be learnt")

    @property
    def _counted(self) -> list[int]:
        """Numbers of the classes that measures are means over."""
        return [number for number, name in enumerate(self._names) if name.lower() != BACKGROUND]

    def targets(self, source: Source, ids: Ids) -> Tensor:
        """Class numbers uint8 [n, H, W], `VOID` where a pixel has none."""
        assert source.masks is not None
        return torch.from_numpy(source.masks.read(ids))

    def chance(self, test: Source) -> float:
        """The mean intersection over union of the best class for all pixels."""
        assert test.masks is not None
        counts = np.zeros(256, np.int64)
        for masks in mask_blocks(test.masks, 0, len(test)):
            counts += np.bincount(masks.ravel(), minlength=256)
        counts = counts[: self.outputs][self._counted]
        total, present = counts.sum(), int((counts > 0).sum())
        return float(counts.max() / total / present) if present else 0.0

    def losses(self, answers: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy, a mean over the pixels of a sample, and one minus the mean Dice coefficient of its classes."""
        known = targets != VOID
        classes = torch.where(known, targets, 0).long()
        entropy = functional.cross_entropy(answers, classes, reduction="none") * known
        entropy = entropy.sum((1, 2)) / known.sum((1, 2)).clamp(min=1)
        shares = answers.softmax(1) * known[:, None]
        truth = functional.one_hot(classes, self.outputs).permute(0, 3, 1, 2) * known[:, None]
        both, either = (shares * truth).sum((2, 3)), shares.sum((2, 3)) + truth.sum((2, 3))
        return entropy + 1 - ((2 * both + _SMOOTH) / (either + _SMOOTH)).mean(1)

    def right(self, answers: Tensor, targets: Tensor) -> Tensor:
        """See `Task.right`."""
        known = targets != VOID
        return ((answers.argmax(1) == targets) & known).sum((1, 2)) / known.sum((1, 2)).clamp(min=1)

    def tally(self) -> Sums:
        """See `Task.tally`."""
        return Confusion(self.outputs, self._counted)


class Confusion(Sums):
    """How many pixels of each class are taken for which."""

    def __init__(self, classes: int, counted: list[int]) -> None:
        """Start.

        Args:
            classes: their number.
            counted: those that means are over.
        """
        super().__init__()
        self._classes, self._counted = classes, counted

    def count(self, answers: Tensor, targets: Tensor) -> Tensor:
        """See `Sums.count`."""
        known = targets != VOID
        pairs = targets[known].long() * self._classes + answers.argmax(1)[known]
        return torch.bincount(pairs, minlength=self._classes**2).reshape(self._classes, -1)

    def measures(self, world: World) -> Mapping[str, float]:
        """See `Tally.measures`; a class that is in no mask of the test does not count."""
        confusion = self.sums(world).numpy().astype(np.float64)
        both, truth, answered = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
        present = [number for number in self._counted if truth[number]]
        if not present:
            raise DataError("no pixel of the test samples has a class that counts: choose other test samples")
        union = truth + answered - both
        return {
            "mean IoU": float(np.mean(both[present] / union[present])),
            "mean Dice": float(np.mean(2 * both[present] / (truth + answered)[present])),
            "sensitivity": float(np.mean(both[present] / truth[present])),
        }
