"""What a victim reached."""

from __future__ import annotations

from dataclasses import dataclass, field

from hpcule.world.gradient_norms import GradientNorms


@dataclass(frozen=True)
class EpochResult:
    """Accuracy in [0, 1] after an epoch: over the epoch's own (augmented) batches, and on the clean test set."""

    epoch: int
    train: float
    test: float


@dataclass
class VictimResult:
    """One trained victim."""

    seed: int
    steps: int = 0
    seconds: float = 0.0
    curve: list[EpochResult] = field(default_factory=list)
    steps_to_target: int | None = None
    """Steps after which a test first reached the recipe's target; None where none did, or none was set."""
    gradient_norms: list[tuple[int, GradientNorms]] = field(default_factory=list)
    """With the step that they are of; empty unless the recipe asks for them."""
    alignment: float | None = None
    uniformity: float | None = None
    """Of the features of test samples, where features are learnt first."""

    @property
    def last(self) -> EpochResult:
        """After the last epoch: the figure that counts."""
        return self.curve[-1]

    @property
    def best(self) -> EpochResult:
        """The epoch with the highest test accuracy: an early peak is a known leak of protection."""
        return max(self.curve, key=lambda result: result.test)
