"""The settings that methods of the two-phase template share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, Self

from hpcule.config.run import BoundedConfig
from hpcule.data.view import Augment

RateSchedule = Literal["constant", "cosine", "stairs"]


@dataclass(frozen=True, kw_only=True)
class TwoPhaseConfig(BoundedConfig):
    """What the methods of the template have in common."""

    unit: Literal["sample", "class"] = "sample"
    """What one delta is shared by."""
    surrogate: str = "resnet18"
    batch: int = 512
    ghost: int = 32
    """Micro-batch and BatchNorm group: part of the result."""
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    clip_norm: float | None = 5.0
    model_steps: int = 10
    """Minibatches of a model phase; the walk through the data continues from round to round."""
    model_epochs: int | None = None
    """So many times all samples instead."""
    schedule: RateSchedule = "constant"
    """Of the learning rate over all rounds; cosine to 0, or stairs that fall to a tenth at the milestones."""
    milestones: tuple[float, ...] = (0.375, 0.625, 0.875)
    """Parts of the way."""
    warmup_epochs: int = 0
    """Over which the learning rate grows to its full height."""
    augment: Augment = "none"
    """What the surrogate looks through in both phases, drawn anew at every step; strong is SimCLR's augmentation."""
    strength: float = 1.0
    """Of the strong augmentation."""
    noise_steps: int | None = None
    """Signed steps on each delta in a noise phase; None: 20 sample-wise, 1 class-wise."""
    step_size: float | None = None
    """Levels a noise step; None: epsilon / 10."""
    stop_error: float = 0.01
    """End when the surrogate's error on the perturbed samples is this small."""
    max_rounds: int = 30
    subset: float = 0.2
    """Class-wise: share of each class that a noise phase walks through."""

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        if not 0 < self.subset <= 1:
            raise ValueError(f"subset={self.subset:g}: valid are above 0 to 1")
        if min(self.batch, self.ghost, self.model_steps, self.max_rounds) < 1:
            raise ValueError("batch, ghost, model_steps and max_rounds must be at least 1")
        if self.learning_rate <= 0 or min(self.momentum, self.weight_decay) < 0:
            raise ValueError("learning_rate must be above 0, momentum and weight_decay at least 0")
        if not all(0 < part < 1 for part in self.milestones):
            raise ValueError(f"milestones={list(self.milestones)}: valid are parts of the way, above 0 and below 1")
        if self.model_epochs is not None and self.model_epochs < 1:
            raise ValueError(f"model_epochs={self.model_epochs}: at least 1")
        if self.warmup_epochs < 0 or not 0 <= self.strength <= 1:
            raise ValueError("warmup_epochs must be at least 0, strength 0 to 1")
        if self.noise_steps is not None and self.noise_steps < 1:
            raise ValueError(f"noise_steps={self.noise_steps}: at least 1")
        if self.step_size is not None and self.step_size <= 0:
            raise ValueError(f"step_size={self.step_size:g}: must be above 0")

    @property
    def default_noise_steps(self) -> int:
        """What `noise_steps` is where it is not set."""
        return 20 if self.unit == "sample" else 1

    @property
    def default_step(self) -> float:
        """What `step_size` is where it is not set; may look at the number of steps."""
        return self.epsilon / 10

    def resolved(self) -> Self:
        """Write out what depends on other settings."""
        counted = replace(self, noise_steps=self.noise_steps or self.default_noise_steps)
        return replace(counted, step_size=counted.step_size or counted.default_step)
