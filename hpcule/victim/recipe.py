"""Recipes: steps joined with `+`, each with its strength after a hyphen where it has one, and a network after `@`.

`plain`, `crop-flip`, `jpeg-10`, `crop-flip+cutout`, `mix-0.5`, `crop-flip@vgg16`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TypedDict

from hpcule.config.errors import UsageError
from hpcule.config.tree import unknown
from hpcule.nets import check_network
from hpcule.nets.pretrained import ARCHITECTURES
from hpcule.victim.config import OptimizerName, VictimConfig
from hpcule.victim.countermeasures.table import PLAIN, Countermeasures


class OwnSettings(TypedDict, total=False):
    """Settings that a recipe changes besides its steps and its network."""

    optimizer: OptimizerName
    learning_rate: float


OWN_SETTINGS: dict[str, OwnSettings] = {
    "vit": {"optimizer": "adam", "learning_rate": 5e-4},
    "fine-tune": {"learning_rate": 0.01},
}
"""Settings of networks and steps that do not learn with those of the others."""
TRANSFERS = ("fine-tune", "freeze", "linear-probe")
"""Steps of victims that begin with trained weights."""


@dataclass(frozen=True)
class Recipe:
    """How a victim trains: `victim.countermeasures` and `victim.network` in one text.

    Attributes:
        countermeasures: its steps.
        network: by name; None: the one of the settings.
        name: as the user wrote it; two spellings of the same steps are the same recipe.
    """

    countermeasures: Countermeasures = PLAIN
    network: str | None = None
    name: str = field(default="plain", compare=False)

    @classmethod
    def parse(cls, value: object) -> Recipe:
        """Read steps joined with `+`, and a network.

        Raises:
            UsageError: the steps cannot be read, see `Countermeasures.parse`, or the network is unknown.
        """
        if not isinstance(value, str):
            raise UsageError(f"{value}: expected a recipe, for example crop-flip+jpeg-10")
        listed, at, network = value.partition("@")
        try:
            steps = Countermeasures.parse(listed)
            _check_network(value, network if at else None, steps)
        except UsageError as error:
            raise UsageError(f"recipe {value}: {error}") from None
        return cls(steps, network or None, value)

    def written(self) -> str:
        """The text that `parse` reads."""
        return self.name

    @property
    def title(self) -> str:
        """Name of the recipe in reports."""
        title = self.countermeasures.title or "no augmentation"
        return f"{title}, network {self.network}" if self.network else title

    @property
    def share(self) -> float | None:
        """Share of the samples that are published; the attacker has the others clean. None: all are published."""
        return self.countermeasures.share

    @property
    def whole(self) -> Recipe:
        """The recipe on samples of one kind, without a mixture: what a clean control trains by."""
        steps = self.countermeasures.without("mixture")
        return Recipe(steps, self.network, f"{steps}@{self.network}" if self.network else str(steps))

    def applied(self, config: VictimConfig) -> VictimConfig:
        """The settings of a victim that trains by this recipe; it replaces their countermeasures."""
        changed = dataclasses.replace(config, countermeasures=self.countermeasures)
        if self.network is not None:
            changed = dataclasses.replace(changed, network=self.network)
        for name in (self.network, *(step.name for step in self.countermeasures.steps)):
            changed = dataclasses.replace(changed, **OWN_SETTINGS.get(name or "", {}))
        return changed


def _check_network(text: str, network: str | None, steps: Countermeasures) -> None:
    """Refuse networks without trained weights where a step needs them, and unknown ones."""
    transfer = any(steps.named(name) for name in TRANSFERS)
    if transfer and network is None:
        raise UsageError(f"say which trained network, as in {text}@{next(iter(ARCHITECTURES))}")
    if transfer and network not in ARCHITECTURES:
        raise UsageError(unknown("network", network or "", ARCHITECTURES))
    if network is not None and not transfer:
        check_network(network)
