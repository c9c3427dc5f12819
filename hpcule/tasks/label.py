"""One label of each sample: its class."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from hpcule.config.errors import DataError
from hpcule.data.source import Ids, Source
from hpcule.measure.accuracy import chance_level
from hpcule.tasks.task import Sums, Task
from hpcule.world.group import World


class Naming(Task):
    """Name one of several classes: cross-entropy, and the share of samples that are named right."""

    measure = "accuracy"

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
        return torch.from_numpy(source.labels[ids])

    def chance(self, test: Source) -> float:
        """See `Task.chance`."""
        assert test.labels is not None
        return chance_level(test.labels)


class Recognised(Sums):
    """How many answers name the right class."""

    def count(self, answers: Tensor, targets: Tensor) -> Tensor:
        """See `Sums.count`."""
        right = (answers.argmax(1) == targets).sum()
        return torch.stack([right, torch.full_like(right, len(targets))])

    def measures(self, world: World) -> Mapping[str, float]:
        """See `Tally.measures`."""
        right, count = self.sums(world).tolist()
        return {"accuracy": right / count}
