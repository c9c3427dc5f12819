"""What an evaluation trains: its settings, and the suites that fill them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NotRequired, TypedDict

from hpcule.config.ranges import check_ranges, setting
from hpcule.config.run import WorldConfig
from hpcule.data.source import Source
from hpcule.victim.config import VictimConfig
from hpcule.victim.countermeasures.purify import PURIFICATIONS
from hpcule.victim.countermeasures.table import COUNTERMEASURES
from hpcule.victim.recipe import TRANSFERS, Recipe


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


SUITES: Mapping[str, SuiteSettings] = {
    "quick": {
        "recipes": ["plain", "grayscale", "jpeg-10", "mix-0.5"],
        "seeds": [0],
        "victim": {"network": "resnet-tiny", "epochs": 10},
    },
    "standard": {
        "recipes": ["plain", "crop-flip", "grayscale", "jpeg-10", "bit-depth-2", "cutout", "mixup", "mix-0.5"],
        "seeds": [0, 1, 2],
        "equal_spectrum": True,
    },
    "full": {
        "recipes": [
            "plain",
            "crop-flip",
            *(
                name if kind.stage in ("few", "features") else f"crop-flip+{name}"
                for name, kind in COUNTERMEASURES.items()
                if name not in (*TRANSFERS, *PURIFICATIONS) and kind.stage != "test"
            ),
            *(f"crop-flip+mix-{share}" for share in (0.9, 0.8, 0.5, 0.2)),
            *(f"crop-flip@{name}" for name in ("resnet50", "senet18", "vgg16", "densenet121", "mobilenet-v2", "vit")),
        ],
        "seeds": [0, 1, 2, 3, 4],
        "equal_spectrum": True,
        "victim": {"network": "resnet18", "epochs": 60},
    },
}


AUDIO_VICTIM = {"network": "mel-cnn", "optimizer": "adam", "learning_rate": 0.002}


def suite(name: str, source: Source) -> SuiteSettings:
    """Settings of a suite for images, or for recordings: neither cropped nor flipped, and for a network of theirs."""
    settings = SUITES[name]
    return settings if source.rate is None else {**settings, "recipes": ["plain"], "victim": AUDIO_VICTIM}
