"""What an evaluation trains: its settings, and the suites that fill them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NotRequired, TypedDict

from hpcule.config.errors import UsageError
from hpcule.config.ranges import check_ranges, setting
from hpcule.config.run import WorldConfig
from hpcule.config.tree import build_config, merged, with_overrides
from hpcule.data.grid import SHOWN
from hpcule.data.source import Source
from hpcule.nets.pretrained import ARCHITECTURES, remedy_for
from hpcule.publish.carry import files_of
from hpcule.tasks.table import find_task
from hpcule.victim.config import VictimConfig
from hpcule.victim.countermeasures.by_task import FOR_VOLUMES
from hpcule.victim.countermeasures.purify import PURIFICATIONS
from hpcule.victim.countermeasures.table import COUNTERMEASURES
from hpcule.victim.recipe import TRANSFERS, Recipe
from hpcule.victim.training_schedule import USUAL_EPOCHS, enough_epochs


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """What is trained to measure a store's protection."""

    victim: VictimConfig = field(default_factory=VictimConfig)
    recipes: tuple[Recipe, ...] = (Recipe(),)
    """plain, crop-flip, and countermeasures, joined with +, and a network after @: crop-flip+jpeg-10@vgg16, mix-0.5."""
    seeds: tuple[int, ...] = (0, 1, 2)
    equal_spectrum: bool = False
    """One more control: random noise with the mean spectrum and the strength of the perturbation."""
    samples: int | None = setting(None, at_least=1)
    """Number of samples that victims train on, the same for all; None: all."""
    left_out: tuple[str, ...] = ()
    """Attackers of a suite that are not trained, and why; reports say so."""
    lpips: str | None = None
    """File with the weights of torchvision's AlexNet, to measure LPIPS too."""
    world: WorldConfig = field(default_factory=WorldConfig)

    def __post_init__(self) -> None:
        """Check ranges, and which settings go together."""
        check_ranges(self)
        if not self.seeds:
            raise ValueError("seeds must not be empty")
        if all(recipe.share is not None for recipe in self.recipes):
            names = [recipe.name for recipe in self.recipes]
            raise ValueError(f"recipes={names}: at least one without clean samples, such as plain")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds={list(self.seeds)}: the same seed twice is one measurement")


class SuiteSettings(TypedDict):
    """What a suite sets of `EvaluateConfig`, as a file of settings would."""

    recipes: list[str]
    seeds: list[int]
    equal_spectrum: NotRequired[bool]
    victim: NotRequired[Mapping[str, object]]


PRETRAINED = "efficientnet-lite0"
"""The encoder of attackers in suites: its packages carry the weights, so that nothing is downloaded."""
ENCODERS = ("efficientnet-lite2", "efficientnet-lite1", PRETRAINED)
"""Encoders whose packages carry their weights, the best first."""


def best_encoder() -> str:
    """The best of `ENCODERS` that is installed; the first of them where none is."""
    return next((name for name in ENCODERS if remedy_for(name) is None), ENCODERS[0])


RECOMPRESSED = "grayscale+jpeg-50+test-too"
SUITES: Mapping[str, SuiteSettings] = {
    "quick": {
        "recipes": ["plain", "jpeg-10", RECOMPRESSED, "size", f"linear-probe@{PRETRAINED}", "mix-0.5"],
        "seeds": [0],
        "victim": {"network": "resnet-tiny", "epochs": 10},
    },
    "standard": {
        "recipes": [
            *("plain", "crop-flip", "grayscale", "jpeg-10", "bit-depth-2", "cutout", "mixup"),
            *(RECOMPRESSED, "size", f"linear-probe@{PRETRAINED}", "mix-0.5"),
        ],
        "seeds": [0, 1, 2],
        "equal_spectrum": True,
    },
    "clinic": {
        "recipes": [
            *("plain", "crop-flip", "zscore+crop-flip+affine+resize+noise+contrast+gamma"),
            *(RECOMPRESSED, "size", "lowpass", "equalize", "dvae", f"linear-probe@{PRETRAINED}"),
            *(f"{RECOMPRESSED}+linear-probe@{PRETRAINED}", f"size+linear-probe@{PRETRAINED}"),
            *(f"crop-flip+fine-tune@{PRETRAINED}", f"{RECOMPRESSED}+crop-flip+fine-tune@{PRETRAINED}"),
        ],
        "seeds": [0, 1, 2],
        "equal_spectrum": True,
    },
    "sizes": {"recipes": ["plain", f"linear-probe@{best_encoder()}"], "seeds": [0, 1, 2]},
    "full": {
        "recipes": [
            "plain",
            "crop-flip",
            *(
                name if kind.stage in ("few", "features") else f"crop-flip+{name}"
                for name, kind in COUNTERMEASURES.items()
                if name not in (*TRANSFERS, *PURIFICATIONS) and kind.stage != "test" and not kind.window
            ),
            *(f"crop-flip+{RECOMPRESSED}", f"linear-probe@{PRETRAINED}"),
            *(f"crop-flip+mix-{share}" for share in (0.9, 0.8, 0.5, 0.2)),
            *(f"crop-flip@{name}" for name in ("resnet50", "senet18", "vgg16", "densenet121", "mobilenet-v2", "vit")),
        ],
        "seeds": [0, 1, 2, 3, 4],
        "equal_spectrum": True,
        "victim": {"network": "resnet18", "epochs": 60},
    },
}
"""Recipes and settings by name; `size` without a strength depends on the samples, see `suite`."""
IN_WINDOWS: Mapping[str, Sequence[str]] = {
    "clinic": ("window", "set-window+crop-flip"),
    "full": ("crop-flip+window", "crop-flip+set-window"),
}
"""Recipes that suites have in addition on images with more than 8 bits."""
LENGTHS = {"epochs", "steps"}
"""Settings of a victim that say how long it trains."""
AUDIO_VICTIM = {"network": "mel-cnn", "optimizer": "adam", "learning_rate": 0.002}
OTHER_SIZE = 5 / 7
"""Width at which the images of a suite are read, as a share of their own: 160 of 224 pixels."""
SWEPT = (OTHER_SIZE, 1 / 2, 1 / 4)
"""Widths at which those of the suite `sizes` are read, besides their own."""


def suite_config(
    name: str, source: Source, file: Mapping[str, object], overrides: Sequence[str] = ()
) -> EvaluateConfig:
    """The configuration of a suite for these samples, changed by a file of settings and by overrides.

    Where neither the file nor an override sets how long victims train, a small collection is passed through more often
    than the suite says; see `enough_epochs`. Recipes of a suite that cannot be trained here are left out, and
    `left_out` says so. Those that a user names are not.
    """
    own = suite(name, source)
    settings = with_overrides(merged(own, file), overrides)
    if settings["recipes"] == own["recipes"]:
        reasons = {text: _hindrance(Recipe.parse(text), source) for text in own["recipes"]}
        settings["recipes"] = [text for text, reason in reasons.items() if reason is None]
        settings["left_out"] = [
            f"recipes of the suite are left out ({', '.join(text for text in reasons if reasons[text] == reason)}): "
            f"{reason}"
            for reason in dict.fromkeys(reasons.values())
            if reason is not None
        ]
    config = build_config(EvaluateConfig, settings)
    asked = with_overrides(file, overrides).get("victim")
    if isinstance(asked, Mapping) and LENGTHS & asked.keys():
        return config
    epochs = enough_epochs(config.samples or len(source), config.victim.epochs or USUAL_EPOCHS)
    return replace(config, victim=replace(config.victim, epochs=epochs))


def for_tasks(config: EvaluateConfig, tasks: Sequence[str]) -> EvaluateConfig:
    """The configuration with all recipes for each task; `left_out` says which do not go with one.

    Args:
        config: recipes without tasks.
        tasks: names.

    Raises:
        UsageError: there is no such task, or none of the recipes goes with it.
    """
    asked, left_out = dict[Recipe, None](), list(config.left_out)
    for task in map(find_task, tasks):
        refused = []
        for recipe in config.recipes:
            try:
                asked[recipe.asking(task.name)] = None
            except UsageError:
                refused.append(recipe.name)
        if len(refused) == len(config.recipes):
            raise UsageError(f"none of the recipes {', '.join(refused)} goes with the task {task.name}: add plain")
        if refused:
            left_out.append(f"recipes that do not go with the task {task.name} are left out ({', '.join(refused)})")
    return replace(config, recipes=tuple(asked), left_out=tuple(left_out))


def suite(name: str, source: Source) -> SuiteSettings:
    """Settings of a suite for images, or for recordings: neither cropped nor flipped, and for a network of theirs."""
    settings = SUITES[name]
    if source.rate is not None:
        return {**settings, "recipes": ["plain"], "victim": AUDIO_VICTIM}
    # Enlarging is the way for images that are too small to be made smaller.
    width = source.shape[2]
    smaller, larger = round(OTHER_SIZE * width), round(width / OTHER_SIZE)
    pixels = smaller if smaller >= COUNTERMEASURES["size"].lowest else max(larger, 16)
    if name == "sizes":
        return {**settings, "recipes": _at_sizes(settings["recipes"], width)}
    recipes = [re.sub(r"\bsize\b", f"size-{pixels}", text) for text in settings["recipes"]]
    return {**settings, "recipes": [*recipes, *(IN_WINDOWS.get(name, ()) if has_deep_values(source) else ())]}


def _at_sizes(recipes: Sequence[str], width: int) -> list[str]:
    """The recipes at the images' own width and at smaller ones, as far as `size` goes down and up."""
    limits, own = COUNTERMEASURES["size"], min(width, int(COUNTERMEASURES["size"].highest))
    widths = dict.fromkeys(round(share * own) for share in SWEPT)
    steps = [f"size-{pixels}" for pixels in widths if limits.lowest <= pixels < width]
    if own < width:
        steps = [f"size-{own}", *steps]
    return [*recipes, *(step if text == "plain" else f"{step}+{text}" for text in recipes for step in steps)]


def has_deep_values(source: Source) -> bool:
    """Whether there is more in images than the 8 bits of a screen, so that attackers choose what they display."""
    native = files_of(source).native(0)
    return source.levels > SHOWN or (
        native is not None and native.grid is not None and len(native.grid.table) > SHOWN + 1
    )


def _hindrance(recipe: Recipe, source: Source) -> str | None:
    """Why a recipe cannot be trained here, and the remedy; None: it can."""
    steps = recipe.countermeasures
    if source.depth is not None and any(step.name not in FOR_VOLUMES for step in steps.steps):
        return "they are for images, and samples are volumes"
    if recipe.network in ARCHITECTURES and any(steps.named(name) for name in TRANSFERS):
        return remedy_for(recipe.network)
    return None
