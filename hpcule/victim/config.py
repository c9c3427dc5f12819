"""A victim's recipe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hpcule.config.errors import UsageError
from hpcule.config.tree import unknown


@dataclass(frozen=True, kw_only=True)
class VictimConfig:
    """Supervised training from scratch with SGD and a cosine schedule, as the field does, shortened for small nets."""

    network: str = "resnet-small"
    epochs: int = 15
    batch: int = 128
    """Global; the last batches of an epoch differ by one sample instead of leaving a small rest."""
    learning_rate: float = 0.1
    """Cosine to 0, stepped every batch, after one epoch of linear warm-up."""
    momentum: float = 0.9
    weight_decay: float = 5e-4
    augment: Literal["none", "crop-flip"] = "none"
    """crop-flip: zero padding of an eighth of the width, random crop, horizontal flip."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"

    def __post_init__(self) -> None:
        """Check ranges."""
        if min(self.epochs, self.batch) < 1:
            raise ValueError("epochs and batch must be at least 1")
        if self.learning_rate <= 0 or min(self.momentum, self.weight_decay) < 0:
            raise ValueError("learning_rate must be above 0, momentum and weight_decay at least 0")


RECIPES = {"plain": "no augmentation", "crop-flip": "random crop and flip"}
"""Name and title of the ways to train that a report puts side by side; each overrides `augment`."""


def check_recipes(names: tuple[str, ...]) -> None:
    """Raise UsageError for an unknown recipe."""
    for name in names:
        if name not in RECIPES:
            raise UsageError(unknown("recipe", name, RECIPES))
