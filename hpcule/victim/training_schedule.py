"""How long a victim trains, and its learning rate at every step."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hpcule.victim.config import VictimConfig


@dataclass(frozen=True)
class TrainingSchedule:
    """Steps of a run: linear warm-up, and a cosine to 0 over the whole run."""

    learning_rate: float
    steps_an_epoch: int
    total: int
    warmup: float
    """Steps of warm-up."""

    @classmethod
    def of(cls, config: VictimConfig, samples: int) -> TrainingSchedule:
        """The schedule of a recipe on a training set of `samples` samples."""
        steps_an_epoch = max(1, round(samples / config.batch))
        total = config.epochs * steps_an_epoch if config.steps is None else config.steps
        warmup = config.warmup_epochs * steps_an_epoch
        # A run of a single epoch is too short for a warm-up of one.
        return cls(config.learning_rate, steps_an_epoch, total, warmup if warmup < total else 0.0)

    @property
    def epochs(self) -> int:
        """Passes over the training set, the last one perhaps cut short."""
        return math.ceil(self.total / self.steps_an_epoch)

    def ends_epoch(self, step: int) -> bool:
        """Whether an epoch or the run ends after `step` steps."""
        return step % self.steps_an_epoch == 0 or step == self.total

    def rate(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        warm = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        return self.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * step / self.total))
