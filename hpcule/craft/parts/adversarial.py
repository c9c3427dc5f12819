"""The template of adversarial poisons: every sample is moved toward another label, or away from its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor

from hpcule.config.ranges import setting
from hpcule.craft.parts.once_trained import OnceTrained, OnceTrainedConfig


@dataclass(frozen=True, kw_only=True)
class AdversarialConfig(OnceTrainedConfig):
    """What the adversarial methods have in common."""

    targeted: bool = True
    """Move toward a label, instead of away from the sample's own."""
    label_shift: int | None = setting(1, at_least=0)
    """Distance from the sample's own label to the one aimed at; None: half of the classes."""


Attack = TypeVar("Attack", bound=AdversarialConfig)


class Adversarial(OnceTrained[Attack]):
    """The surrogate is attacked with every sample."""

    @property
    def direction(self) -> float:
        """-1, toward a label, or +1, away from the own."""
        return -1.0 if self.config.targeted else 1.0

    def targets(self, labels: Tensor) -> Tensor:
        """The labels to move toward, or the true ones to move away from."""
        if not self.config.targeted:
            return labels
        classes = self.problem.source.class_count
        shift = classes // 2 if self.config.label_shift is None else self.config.label_shift
        return (labels + shift) % classes
