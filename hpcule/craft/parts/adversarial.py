"""The template of adversarial poisons: every sample is moved toward another label, or away from its own."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from hpcule.craft.parts.once_trained import OnceTrained, OnceTrainedConfig


@dataclass(frozen=True, kw_only=True)
class AdversarialConfig(OnceTrainedConfig):
    """What the adversarial methods have in common."""

    targeted: bool = True
    """Toward a label, or away from the sample's own."""
    label_shift: int | None = 1
    """The label aimed at is so many after the sample's own; None: half of the classes."""

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        if self.label_shift is not None and self.label_shift < 0:
            raise ValueError(f"label_shift={self.label_shift}: at least 0")


class Adversarial(OnceTrained):
    """The surrogate is attacked with every sample."""

    config: AdversarialConfig

    @property
    def direction(self) -> float:
        """Down toward a label, up from the own."""
        return -1.0 if self.config.targeted else 1.0

    def targets(self, labels: Tensor) -> Tensor:
        """The labels to move toward, or the true ones to move away from."""
        if not self.config.targeted:
            return labels
        classes = self.problem.source.class_count
        shift = classes // 2 if self.config.label_shift is None else self.config.label_shift
        return (labels + shift) % classes
