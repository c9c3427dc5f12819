"""The template of adversarial poisons: every sample is moved toward another label, or away from its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor

from hpcule.config.ranges import setting
from hpcule.config.run import TaskConfig
from hpcule.craft.parts.once_trained import OnceTrained, OnceTrainedConfig
from hpcule.tasks.crafting import SELF_POSED


@dataclass(frozen=True, kw_only=True)
class AdversarialConfig(OnceTrainedConfig):
    """What the adversarial methods have in common."""

    targeted: bool = True
    """Move toward a label, instead of away from the sample's own."""
    label_shift: int | None = setting(1, at_least=0)
    """Distance from the sample's own label to the one aimed at; None: half of the classes. Of several labels that may
    hold, each is turned round, but with 0."""

    def __post_init__(self) -> None:
        """Check that there is something to move toward."""
        super().__post_init__()
        tasks = self.task.names if isinstance(self, TaskConfig) else ()
        if self.targeted and (posed := [name for name in tasks if name in SELF_POSED]):
            raise ValueError(f"task={posed[0]}: there is no other answer to move toward: set targeted=false")


Attack = TypeVar("Attack", bound=AdversarialConfig)


class Adversarial(OnceTrained[Attack]):
    """The surrogate is attacked with every sample."""

    @property
    def direction(self) -> float:
        """-1, toward a label, or +1, away from the own."""
        return -1.0 if self.config.targeted else 1.0

    def targets(self, labels: Tensor) -> Tensor:
        """The labels to move toward, or the true ones to move away from; of other tasks, what they know."""
        return self.problem.task.wrong(labels, self.config.label_shift) if self.config.targeted else labels
