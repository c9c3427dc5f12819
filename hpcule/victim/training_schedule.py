"""The steps of a victim's training: how many, their learning rates, and how ranks share out their batches."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from hpcule.config.errors import UsageError
from hpcule.data.schedule import check_batch
from hpcule.data.source import Ids
from hpcule.victim.config import VictimConfig
from hpcule.world.group import World

USUAL_EPOCHS = 15
"""Passes over a training set of `ENOUGH` samples or more."""
ENOUGH = 2500
"""Samples from which on the usual passes suffice for a network to learn from clean samples."""
MOST_TIMES = 20
"""How many times as many passes a smaller set gets at most: with the default batch, the steps of `ENOUGH` samples."""


def enough_epochs(samples: int, usual: int = USUAL_EPOCHS) -> int:
    """Passes over a training set where nobody has set their number.

    A set of 600 samples has five steps of the default batch in an epoch: in fifteen epochs of that, no network learns
    anything. So fewer than `ENOUGH` samples are passed through as many more times as make up for it.

    Args:
        samples: in the training set.
        usual: passes over a larger set.
    """
    return math.ceil(usual * min(max(1.0, ENOUGH / samples), MOST_TIMES))


@dataclass(frozen=True)
class TrainingSchedule:
    """Steps of a run: linear warm-up, and a cosine to 0 over the whole run, or a line to 0 from there.

    Every step takes `batch` samples, but the last of an epoch, which takes what is left.
    """

    learning_rate: float
    batch: int
    steps_an_epoch: int
    total: int
    warmup: float
    """Steps of warm-up."""
    triangular: bool = False
    """A straight line down from the end of the warm-up in place of the cosine."""

    @classmethod
    def of(cls, config: VictimConfig, samples: int) -> TrainingSchedule:
        """The schedule of a recipe on a training set of `samples` samples.

        Raises:
            UsageError: a batch that is not the default is larger than the training set.
        """
        check_batch("victim.batch", config.batch, samples, VictimConfig.batch)
        steps_an_epoch = -(-samples // config.batch)
        epochs = config.epochs or enough_epochs(samples)
        total = epochs * steps_an_epoch if config.steps is None else config.steps
        warmup = config.warmup_epochs * steps_an_epoch
        # A run of a single epoch is too short for a warm-up of one.
        warmup, triangular = warmup if warmup < total else 0.0, config.schedule == "triangular"
        return cls(config.learning_rate, config.batch, steps_an_epoch, total, warmup, triangular)

    @property
    def epochs(self) -> int:
        """Passes over the training set, the last one perhaps cut short."""
        return math.ceil(self.total / self.steps_an_epoch)

    def batches(self, numbers: Ids) -> list[Ids]:
        """The batches of an epoch in this order."""
        return [numbers[start : start + self.batch] for start in range(0, len(numbers), self.batch)]

    def ends_epoch(self, step: int) -> bool:
        """Whether an epoch or the run ends after `step` steps."""
        return step % self.steps_an_epoch == 0 or step == self.total

    def rate(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        warm = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        if self.triangular:
            return self.learning_rate * min(warm, (self.total - step) / (self.total - self.warmup))
        return self.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * step / self.total))


def check_batch_for(workers: int, batch: int) -> None:
    """Refuse a victim's batch that is too small for the number of ranks that train it.

    Raises:
        UsageError: a rank would have fewer than two samples.
    """
    if is_small(batch, workers):
        raise UsageError(f"victim.batch={batch} is too small for {workers} workers: at least {2 * workers}")


def is_small(batch: int, workers: int) -> bool:
    """Whether a batch of that size leaves a rank fewer than two samples, of which BatchNorm has no variance."""
    return batch < 2 * workers


def rank_shares(batch: Ids, world: World) -> list[Ids]:
    """Each rank's samples of a batch.

    They are parts of nearly equal size, except of a small batch, such as an epoch's last: that one all ranks take
    whole, and their gradients, which are the same, are averaged like others.
    """
    if is_small(len(batch), world.size):
        return [batch] * world.size
    return np.array_split(batch, world.size)
