"""The contract of a task: what a victim is asked about samples, and how its answers are marked."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor

from hpcule.config.errors import DataError
from hpcule.data.source import Ids, Source
from hpcule.measure.accuracy import Headline
from hpcule.world.group import World

TaskName = Literal["label", "labels", "segmentation", "rotation", "colour", "edges"]
Answers = Literal["numbers", "pixels"]


class Tally(ABC):
    """Marks of answers to a test, batch by batch."""

    @abstractmethod
    def add(self, answers: Tensor, targets: Tensor) -> None:
        """Mark answers [b, ...] to questions with these targets [b, ...], both on one device."""

    @abstractmethod
    def measures(self, world: World) -> Mapping[str, float]:
        """All measures by name over the batches of all ranks, each of which calls this; the first is the headline."""


class Task(ABC):
    """A task on the samples of one source.

    Attributes:
        name: as users write it.
        title: in reports.
        measure: name of the headline measure, which lies in [0, 1].
        answers: whether a network answers with some numbers for a sample, or for each of its pixels.
        outputs: how many numbers.
    """

    name: ClassVar[TaskName]
    title: ClassVar[str]
    measure: ClassVar[str]
    answers: ClassVar[Answers] = "numbers"
    outputs: int

    @abstractmethod
    def __init__(self, source: Source) -> None:
        """Take what the task needs to know of samples.

        Raises:
            DataError: these data cannot have the task.
        """

    @abstractmethod
    def targets(self, source: Source, ids: Ids) -> Tensor:
        """What is known of samples [n, ...], on the CPU; zeros [n] where a task needs nothing besides the samples."""

    @abstractmethod
    def chance(self, test: Source) -> float:
        """The headline measure of the best answer that does not look at the samples of a test set."""

    def headline(self, test: Source) -> Headline:
        """What stands for what a network has learnt in a report; in training it is always `measure`."""
        return Headline(self.measure, self.chance(test), len(test))

    @abstractmethod
    def losses(self, answers: Tensor, targets: Tensor) -> Tensor:
        """The loss of each answer, float32 [b]."""

    @abstractmethod
    def right(self, answers: Tensor, targets: Tensor) -> Tensor:
        """How much of each answer is right, float32 [b] in [0, 1]."""

    def wrong(self, targets: Tensor, shift: int | None) -> Tensor:
        """What samples are to be taken for instead, of the shape of `targets`.

        Args:
            targets: of the samples.
            shift: how far class numbers move; None: half of the classes.
        """
        classes = torch.arange(self.outputs, device=targets.device)
        moved = (classes + (self.outputs // 2 if shift is None else shift)) % self.outputs
        known = (targets >= 0) & (targets < self.outputs)
        return torch.where(known, moved.to(targets.dtype)[targets.clamp(0, self.outputs - 1).long()], targets)

    @abstractmethod
    def tally(self) -> Tally:
        """An empty tally of a test."""

    def question(self, images: Tensor, targets: Tensor, purpose: int, ids: Ids) -> tuple[Tensor, Tensor]:
        """What a network is asked in training, and the targets of that.

        Args:
            images: float32 [b, C, H, W] in [0, 1].
            targets: of the samples [b, ...].
            purpose: the key of what is random.
            ids: int64 [b], of the samples.
        """
        return images, targets

    def exam(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """What a network is asked in a test, [b', C, H, W], and the targets of that [b', ...]; nothing is random."""
        return images, targets


class Sums(Tally):
    """A tally that is a sum: of what `count` gives for a batch."""

    def __init__(self) -> None:
        self._sums: Tensor | None = None

    @abstractmethod
    def count(self, answers: Tensor, targets: Tensor) -> Tensor:
        """Integers or float64 of one shape for every batch."""

    def add(self, answers: Tensor, targets: Tensor) -> None:
        """See `Tally.add`."""
        counted = self.count(answers, targets)
        self._sums = counted if self._sums is None else self._sums + counted

    def sums(self, world: World) -> Tensor:
        """The sum over the batches of all ranks, on the CPU."""
        assert self._sums is not None, "nothing was tested"
        return world.add(self._sums.clone()).cpu()


def require_images(source: Source, task: TaskName) -> None:
    """Check that samples are images, for a task that asks where pixels are.

    Raises:
        DataError: they are recordings or volumes.
    """
    if source.rate is not None or source.depth is not None:
        noun = "recordings" if source.depth is None else "volumes"
        raise DataError(f"{source.name} holds {noun}, and the task {task} is for images: choose another task")


def unmarked(ids: Ids) -> Tensor:
    """The targets of a task that needs nothing besides the samples: zeros [n]."""
    return torch.zeros(len(ids), dtype=torch.int64)
