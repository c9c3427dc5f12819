"""One label of each sample: its class."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from hpcule.config.errors import DataError
from hpcule.data.source import Ids, Source
from hpcule.measure.accuracy import ACCURACY, AREA, BALANCED, Headline, chance_level
from hpcule.measure.ranking import mean_area_under_curve
from hpcule.tasks.task import Sums, Task
from hpcule.world.group import World

MOST_SCORES = 2**24
"""Largest number of scores of a test, samples times classes, of which the area under the curve is measured: ranking
them takes seconds, and memory."""


class Naming(Task):
    """Name one of several classes: cross-entropy, and the share of samples that are named right."""

    measure = ACCURACY

    def losses(self, answers: Tensor, targets: Tensor) -> Tensor:
        """See `Task.losses`."""
        return functional.cross_entropy(answers, targets, reduction="none")

    def right(self, answers: Tensor, targets: Tensor) -> Tensor:
        """See `Task.right`."""
        return (answers.argmax(1) == targets).float()

    def tally(self) -> Sums:
        """See `Task.tally`."""
        return Recognised()


class OneLabel(Naming):
    """Name the class of a sample."""

    name = "label"
    title = "one label"

    def __init__(self, source: Source) -> None:
        """See `Task`."""
        if source.labels is None:
            several = "; for several labels a sample, the task is `labels`" if source.label_matrix else ""
            raise DataError(f"{source.name} has no labels: put the samples into class folders{several}")
        self.outputs = source.class_count

    def targets(self, source: Source, ids: Ids) -> Tensor:
        """Class numbers int64 [n]."""
        assert source.labels is not None
        return torch.from_numpy(source.classes(ids))

    def chance(self, test: Source) -> float:
        """See `Task.chance`."""
        assert test.labels is not None
        return chance_level(test.labels)

    def headline(self, test: Source) -> Headline:
        """See `Task.headline`."""
        assert test.labels is not None
        return Headline.of(test.labels)


class Recognised(Sums):
    """How many answers name the right class, class by class, and how well the scores rank samples."""

    def __init__(self) -> None:
        """Begin an empty tally."""
        super().__init__()
        self._scores: list[Tensor] = []
        self._labels: list[Tensor] = []

    def add(self, answers: Tensor, targets: Tensor) -> None:
        """See `Tally.add`."""
        super().add(answers, targets)
        if sum(scores.numel() for scores in self._scores) <= MOST_SCORES:
            self._scores.append(answers.float().cpu())
            self._labels.append(targets.cpu())

    def count(self, answers: Tensor, targets: Tensor) -> Tensor:
        """See `Sums.count`: of each class, how many answers are right, and how many there are."""
        mine = functional.one_hot(targets, answers.shape[1])
        right = mine[answers.argmax(1) == targets].sum(0)
        return torch.stack([right, mine.sum(0)])

    def measures(self, world: World) -> Mapping[str, float]:
        """See `Tally.measures`; classes without samples do not count."""
        right, count = self.sums(world).double()
        tested = count > 0
        shares = {
            ACCURACY: float(right.sum() / count.sum()),
            BALANCED: float((right[tested] / count[tested]).mean()),
        }
        area = self._area(world) if len(count) * int(count.sum()) <= MOST_SCORES else None
        return shares if area is None else {**shares, AREA: area}

    def _area(self, world: World) -> float | None:
        own = torch.cat(self._scores).numpy(), torch.cat(self._labels).numpy()
        scores, labels = (torch.from_numpy(np.concatenate(part)) for part in zip(*world.gather(own), strict=True))
        return mean_area_under_curve(scores, labels)
