"""The table of methods, and how a craft run's configuration is put together."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from hpcule.config.errors import UsageError
from hpcule.config.run import Preset
from hpcule.config.tree import build, merged, unknown, with_overrides
from hpcule.craft.config import CraftConfig
from hpcule.craft.method import Method
from hpcule.craft.methods.aap import AugmentedAdversarial
from hpcule.craft.methods.ar import Autoregressive
from hpcule.craft.methods.aue import AugmentedUnlearnable
from hpcule.craft.methods.beo import BayesError
from hpcule.craft.methods.classwise import Classwise
from hpcule.craft.methods.cp import ContrastivePoisoning
from hpcule.craft.methods.cuda import Convolution
from hpcule.craft.methods.em import ErrorMinimizing
from hpcule.craft.methods.em_ops import ErrorMinimizingShortcut
from hpcule.craft.methods.entf import EntangledFeatures
from hpcule.craft.methods.gue import GameUnlearnable
from hpcule.craft.methods.hypo import Hypocritical
from hpcule.craft.methods.lsp import LSP
from hpcule.craft.methods.ops import OnePixelShortcut
from hpcule.craft.methods.pil import PIL
from hpcule.craft.methods.poscuda import PositionalConvolution
from hpcule.craft.methods.pue import ProvablyUnlearnable
from hpcule.craft.methods.rem import RobustErrorMinimizing
from hpcule.craft.methods.sem import StableErrorMinimizing
from hpcule.craft.methods.sep import SelfEnsemble
from hpcule.craft.methods.tap import TargetedAdversarial
from hpcule.craft.methods.tue import TransferableUnlearnable
from hpcule.craft.methods.uc import UnlearnableClusters

METHODS: Mapping[str, type[Method]] = {
    "em": ErrorMinimizing,
    "pil": PIL,
    "uc": UnlearnableClusters,
    "aue": AugmentedUnlearnable,
    "aap": AugmentedAdversarial,
    "tap": TargetedAdversarial,
    "hypo": Hypocritical,
    "pue": ProvablyUnlearnable,
    "rem": RobustErrorMinimizing,
    "sem": StableErrorMinimizing,
    "sep": SelfEnsemble,
    "entf": EntangledFeatures,
    "beo": BayesError,
    "cp": ContrastivePoisoning,
    "gue": GameUnlearnable,
    "ar": Autoregressive,
    "classwise": Classwise,
    "cuda": Convolution,
    "lsp": LSP,
    "ops": OnePixelShortcut,
    "em-ops": ErrorMinimizingShortcut,
    "tue": TransferableUnlearnable,
    "poscuda": PositionalConvolution,
}


def find(name: str) -> type[Method]:
    """The method of that name.

    Raises:
        UsageError: there is none.
    """
    if name not in METHODS:
        raise UsageError(unknown("method", name, METHODS))
    return METHODS[name]


def configure(
    name: str, data: str, *, preset: Preset | None, file: Mapping[str, Any], overrides: Sequence[str]
) -> CraftConfig:
    """The configuration of a run: the paper's defaults < its variants < preset < file < overrides.

    Raises:
        UsageError: an unknown method, preset or setting, or a value out of range.
    """
    method = find(name)
    tree = with_overrides(merged({"method": {"name": name}}, file), overrides)
    chosen = preset or tree.get("preset", "paper")
    if chosen not in ("paper", "small", "smoke"):
        raise UsageError(unknown("preset", str(chosen), ("paper", "small", "smoke")))
    settings = tree["method"]
    if not isinstance(settings, Mapping) or settings["name"] != name:
        raise UsageError(f"method: the configuration is for another method than '{name}'")
    below: Mapping[str, Any] = {}
    for setting, values in method.variants.items():
        below = merged(below, values.get(str(settings.get(setting)), {}))
    below = merged(below, method.presets.get(chosen, {}))
    filled = build(method.config_class, merged(below, settings), "method.").resolved()
    if method.facts.needs_surrogate:
        tree = {"seed": 0, **tree}
    return build(CraftConfig, {**tree, "data": data, "preset": chosen, "method": filled})


def describe() -> list[dict[str, Any]]:
    """One row a method: name, the survey's seven facts, cost, paper, weaknesses."""
    return [{"name": name, **dataclasses.asdict(method.facts)} for name, method in METHODS.items()]
