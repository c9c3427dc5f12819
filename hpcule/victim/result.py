"""What training one victim finds, epoch by epoch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NotRequired, TypedDict

from hpcule.world.gradient_norms import GradientNorms, NormsDocument


@dataclass(frozen=True)
class EpochResult:
    """What is right after an epoch, in [0, 1]: of the answers on its own (augmented) batches, and on the clean test set
    the task's own measure, which is accuracy where one label is learnt, and all `measures` by name, that among them."""

    epoch: int
    train: float
    test: float
    measures: Mapping[str, float] = field(default_factory=dict)


class EpochDocument(TypedDict):
    """Accuracy in [0, 1] after one epoch, on the training set as published and on the clean test set, with all
    `measures` of that test by name (which results of earlier versions do not have)."""

    epoch: int
    train: float
    test: float
    measures: NotRequired[Mapping[str, float]]


class ResultDocument(TypedDict):
    """A victim's result as JSON holds it; see `VictimResult`."""

    seed: int
    steps: int
    samples_seen: int
    batch_taken: int
    seconds: float
    curve: list[EpochDocument]
    steps_to_target: int | None
    gradient_norms: list[tuple[int, NormsDocument]]
    alignment: float | None
    uniformity: float | None


@dataclass
class VictimResult:
    """One trained victim."""

    seed: int
    steps: int = 0
    """Number of optimizer steps."""
    samples_seen: int = 0
    """Samples that these steps have taken, each as often as it was."""
    batch_taken: int = 0
    """Samples that a step has taken, counted; the last of an epoch may have had fewer."""
    seconds: float = 0.0
    """Wall time of training and testing, without reading."""
    curve: list[EpochResult] = field(default_factory=list)
    steps_to_target: int | None = None
    """Number of steps after which a test first reached `victim.target`; None if no test did, or no target is set."""
    gradient_norms: list[tuple[int, GradientNorms]] = field(default_factory=list)
    """Norms of the gradients of some steps, counted from 0; empty unless `victim.noise_scale_every` asks for them."""
    alignment: float | None = None
    """Alignment of two views of test samples, where features are learned first."""
    uniformity: float | None = None
    """Uniformity of the features of test samples, where features are learned first."""

    @property
    def last(self) -> EpochResult:
        """The result of the last epoch: the figure that counts."""
        return self.curve[-1]

    @property
    def best(self) -> EpochResult:
        """The epoch with the highest test accuracy: an early peak is a known leak of protection."""
        return max(self.curve, key=lambda result: result.test)

    def document(self) -> ResultDocument:
        """The result for JSON."""
        return {
            "seed": self.seed,
            "steps": self.steps,
            "samples_seen": self.samples_seen,
            "batch_taken": self.batch_taken,
            "seconds": self.seconds,
            "curve": [_epoch_document(result) for result in self.curve],
            "steps_to_target": self.steps_to_target,
            "gradient_norms": [(step, norms.document()) for step, norms in self.gradient_norms],
            "alignment": self.alignment,
            "uniformity": self.uniformity,
        }

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> VictimResult:
        """Read what `document` wrote; other entries are left out.

        Raises:
            KeyError, TypeError: an entry is missing, or is not what it should be.
        """
        values = {entry.name: document[entry.name] for entry in dataclasses.fields(cls)}
        values["curve"] = [EpochResult(**epoch) for epoch in values["curve"]]
        values["gradient_norms"] = [(step, GradientNorms(**norms)) for step, norms in values["gradient_norms"]]
        return cls(**values)


def _epoch_document(found: EpochResult) -> EpochDocument:
    return {"epoch": found.epoch, "train": found.train, "test": found.test, "measures": dict(found.measures)}
