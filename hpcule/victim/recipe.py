"""Recipes: steps joined with `+`, each with its strength after a hyphen where it has one, a network after `@`, and a
task before a colon.

`plain`, `crop-flip`, `jpeg-10`, `crop-flip+cutout`, `mix-0.5`, `crop-flip@vgg16`, `segmentation:crop-flip`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Literal, TypedDict

from hpcule.config.errors import UsageError
from hpcule.config.tree import unknown
from hpcule.nets import check_network
from hpcule.nets.pixel_nets import WIDTHS as PIXEL_NETS
from hpcule.nets.pixel_nets import check_pixel_network
from hpcule.nets.pretrained import ARCHITECTURES
from hpcule.tasks.label import OneLabel
from hpcule.tasks.table import TASKS, find_task
from hpcule.tasks.task import Answers, TaskName
from hpcule.victim.config import OptimizerName, VictimConfig
from hpcule.victim.countermeasures.by_task import require_for_task
from hpcule.victim.countermeasures.table import PLAIN, Countermeasures


class OwnSettings(TypedDict, total=False):
    """Settings that a recipe changes besides its steps and its network."""

    optimizer: OptimizerName
    learning_rate: float
    schedule: Literal["cosine", "triangular"]
    warmup_epochs: float
    momentum: float
    nesterov: bool
    weight_decay: float
    average_weights: bool


OWN_SETTINGS: dict[str, OwnSettings] = {
    "vit": {"optimizer": "adam", "learning_rate": 5e-4},
    "fine-tune": {"learning_rate": 0.01},
    "fast": {
        "schedule": "triangular",
        "warmup_epochs": 2.0,
        "momentum": 0.85,
        "nesterov": True,
        "weight_decay": 1.3e-3,
        "average_weights": True,
    },
    **dict.fromkeys(PIXEL_NETS, OwnSettings(optimizer="adam", learning_rate=1e-3)),
}
"""Settings of networks and steps that do not learn with those of the others."""
FAST_RATE = 2.5e-3
"""Learning rate of the fast network for each sample of a batch: its steps are larger, the more samples they average."""
FAST_SMOOTHING = 0.2
"""Label smoothing of the fast network, where labels can be smoothed."""
OWN_NETWORKS = {"speed": "fast"}
"""Networks of recipes that name none, by a step of theirs."""
TRANSFERS = ("fine-tune", "freeze", "adapters", "linear-probe")
"""Steps of victims that begin with trained weights."""


@dataclass(frozen=True)
class Recipe:
    """How a victim trains: `victim.task`, `victim.countermeasures` and `victim.network` in one text.

    Attributes:
        countermeasures: its steps.
        network: by name; None: the one of the settings.
        task: by name; None: the one of the settings.
        name: as the user wrote it; two spellings of the same steps are the same recipe.
    """

    countermeasures: Countermeasures = PLAIN
    network: str | None = None
    task: TaskName | None = None
    name: str = field(default="plain", compare=False)

    @classmethod
    def parse(cls, value: object) -> Recipe:
        """Read steps joined with `+`, a network, and a task.

        Raises:
            UsageError: the steps cannot be read, see `Countermeasures.parse`, the network or the task is unknown, or
                they do not go together.
        """
        if not isinstance(value, str):
            raise UsageError(f"{value}: expected a recipe, for example crop-flip+jpeg-10")
        before, at, network = value.partition("@")
        task, colon, listed = before.rpartition(":")
        try:
            steps, asked = Countermeasures.parse(listed), find_task(task) if colon else OneLabel
            require_for_task(steps, asked.name)
            _check_network(value, network if at else None, steps, asked.answers)
        except UsageError as error:
            raise UsageError(f"recipe {value}: {error}") from None
        return cls(steps, network or None, asked.name if colon else None, value)

    def written(self) -> str:
        """The text that `parse` reads."""
        return self.name

    @property
    def title(self) -> str:
        """Name of the recipe in reports."""
        title = self.countermeasures.title or "no augmentation"
        if self.task:
            title = f"{TASKS[self.task].title}, {title}"
        return f"{title}, network {self.network}" if self.network else title

    @property
    def share(self) -> float | None:
        """Share of the samples that are published; the attacker has the others clean. None: all are published."""
        return self.countermeasures.share

    @property
    def whole(self) -> Recipe:
        """The recipe on samples of one kind, without a mixture: what a clean control trains by."""
        steps = self.countermeasures.without("mixture")
        name = f"{self.task}:{steps}" if self.task else str(steps)
        return Recipe(steps, self.network, self.task, f"{name}@{self.network}" if self.network else name)

    def asking(self, task: TaskName) -> Recipe:
        """The recipe for a task.

        Raises:
            UsageError: it does not go with it.
        """
        return Recipe.parse(f"{task}:{self.name.partition(':')[2] if self.task else self.name}")

    def applied(self, config: VictimConfig) -> VictimConfig:
        """The settings of a victim that trains by this recipe; it replaces their countermeasures."""
        changed = dataclasses.replace(config, countermeasures=self.countermeasures)
        if self.task is not None:
            changed = dataclasses.replace(changed, task=self.task)
        network = self.network or next(
            (OWN_NETWORKS[step.name] for step in self.countermeasures.steps if step.name in OWN_NETWORKS), None
        )
        by_pixel = TASKS[changed.task].answers == "pixels"
        if self.network in PIXEL_NETS:
            changed = dataclasses.replace(changed, pixel_network=self.network)
        elif network is not None and not by_pixel:
            changed = dataclasses.replace(changed, network=network)
        trained = changed.pixel_network if by_pixel else network
        for name in (trained, *(step.name for step in self.countermeasures.steps)):
            changed = dataclasses.replace(changed, **OWN_SETTINGS.get(name or "", {}))
        if trained == "fast":
            smoothing = FAST_SMOOTHING if changed.smooths_labels else 0.0
            rate = FAST_RATE * changed.batch
            changed = dataclasses.replace(changed, learning_rate=rate, label_smoothing=smoothing)
        return changed


def _check_network(text: str, network: str | None, steps: Countermeasures, answers: Answers) -> None:
    """Refuse networks without trained weights where a step needs them, those for other answers, and unknown ones."""
    if answers == "pixels":
        if network is not None:
            check_pixel_network(network)
        return
    transfer = any(steps.named(name) for name in TRANSFERS)
    if transfer and network is None:
        raise UsageError(f"say which trained network, as in {text}@{next(iter(ARCHITECTURES))}")
    if transfer and network not in ARCHITECTURES:
        raise UsageError(unknown("network", network or "", ARCHITECTURES))
    if network is not None and not transfer:
        check_network(network)
