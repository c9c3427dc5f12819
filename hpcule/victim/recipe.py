"""Recipes: steps joined with `+`, each with its strength after a hyphen where it has one, and a network after `@`.

`plain`, `crop-flip`, `jpeg-10`, `crop-flip+cutout`, `mix-0.5`, `crop-flip@vgg16`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from hpcule.config.errors import UsageError
from hpcule.config.tree import unknown
from hpcule.nets import check_network
from hpcule.nets.pretrained import ARCHITECTURES
from hpcule.victim.config import VictimConfig
from hpcule.victim.countermeasures.table import (
    COUNTERMEASURES,
    check_together,
    countermeasure,
    refit_step,
    split_strength,
)

OWN_SETTINGS: dict[str, dict[str, Any]] = {
    "vit": {"optimizer": "adam", "learning_rate": 5e-4},
    "fine-tune": {"learning_rate": 0.01},
}
"""Of networks and steps that do not learn with the settings of the others."""
TRANSFERS = ("fine-tune", "linear-probe")
"""Steps that begin with trained weights."""


@dataclass(frozen=True)
class Recipe:
    """How a victim trains, and on what.

    Attributes:
        crop_flip: random crops and flips, ordinary augmentation.
        countermeasures: texts for `countermeasure`, in the order in which they act.
        mix: share of the samples that are taken as published, clean ones being mixed in; None: all.
        network: by name; None: the one of the settings.
    """

    crop_flip: bool
    countermeasures: tuple[str, ...]
    mix: float | None
    network: str | None = None

    @property
    def share(self) -> float | None:
        """Share of the samples that are published; the thief has the others clean. None: all are published."""
        refit = refit_step(self.countermeasures)
        return 1 - (refit.strength or 0) / 100 if refit else self.mix

    @property
    def title(self) -> str:
        """For people."""
        parts = ["random crop and flip"] if self.crop_flip else []
        parts += [countermeasure(text).title for text in self.countermeasures]
        if self.mix is not None:
            parts.append(f"{100 * self.mix:g}% protected, the rest clean")
        if self.network is not None:
            parts = [*(parts or ["no augmentation"]), f"network {self.network}"]
        return ", ".join(parts) or "no augmentation"


def read_recipe(text: str) -> Recipe:
    """Read steps joined with `+`, and a network.

    Raises:
        UsageError: a step is unknown, has a strength that it cannot have, stands there twice, or beside one that it
            does not go with; or the network is unknown.
    """
    listed, at, network = text.partition("@")
    steps = listed.split("+")
    _check_network(text, network if at else None, steps)
    if len({split_strength(step)[0] for step in steps}) < len(steps):
        raise UsageError(f"recipe {text}: a step stands there twice")
    crop_flip, mix, names = False, None, []
    for step in steps:
        name, strength = split_strength(step)
        if step == "plain" and len(steps) == 1:
            continue
        if step == "crop-flip":
            crop_flip = True
        elif name == "mix":
            if strength is None or not 0 < strength < 1:
                raise UsageError(f"recipe {text}: mix-0.5 has half of the samples clean; a share between 0 and 1")
            mix = strength
        elif name in COUNTERMEASURES:
            names.append(step)
            countermeasure(step)
        else:
            raise UsageError(unknown("step of a recipe", step, ("plain", "crop-flip", "mix-0.5", *COUNTERMEASURES)))
    check_together(names, crop_flip=crop_flip)
    if mix is not None and refit_step(names):
        raise UsageError(f"recipe {text}: either mixes clean samples in, or fits the last layer to them")
    return Recipe(crop_flip, tuple(names), mix, network or None)


def _check_network(text: str, network: str | None, steps: list[str]) -> None:
    """Trained weights need an architecture that comes with them; all else is trained from scratch."""
    transfer = next((step for step in steps if step in TRANSFERS), None)
    if transfer and network is None:
        raise UsageError(f"recipe {text}: say which trained network, as in {text}@{next(iter(ARCHITECTURES))}")
    if transfer and network not in ARCHITECTURES:
        raise UsageError(f"recipe {text}: {unknown('network', network or '', ARCHITECTURES)}")
    if network is not None and not transfer:
        try:
            check_network(network)
        except UsageError as error:
            raise UsageError(f"recipe {text}: {error}") from None


def check_recipes(names: tuple[str, ...]) -> None:
    """Raise UsageError for recipes that cannot be read."""
    for name in names:
        read_recipe(name)


def with_recipe(config: VictimConfig, text: str) -> VictimConfig:
    """The settings of a victim that trains by this recipe."""
    steps = read_recipe(text)
    changed: dict[str, Any] = {"augment": "crop-flip" if steps.crop_flip else "none"}
    if steps.network is not None:
        changed["network"] = steps.network
    for name in (steps.network, *steps.countermeasures):
        changed |= OWN_SETTINGS.get(name or "", {})
    return dataclasses.replace(config, countermeasures=steps.countermeasures, **changed)


def without_mixture(text: str) -> str:
    """The recipe on samples of one kind: what a clean control of `text` trains by."""
    listed, at, network = text.partition("@")
    steps = [step for step in listed.split("+") if split_strength(step)[0] != "mix"]
    return ("+".join(steps) or "plain") + at + network
