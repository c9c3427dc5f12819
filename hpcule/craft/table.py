"""The table of methods, built in and installed, and how a craft run's configuration is put together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

from hpcule.config.errors import HpculeError, UsageError, one_line
from hpcule.config.run import Preset
from hpcule.config.tree import Tree, build_config, merged, unknown, with_overrides

if TYPE_CHECKING:
    from hpcule.craft.config import CraftConfig
    from hpcule.craft.method import Method

GROUP = "hpcule.methods"
"""Entry points of installed packages that offer a method each: the name, and the class."""
BUILT_IN: Mapping[str, str] = {
    "em": "em:ErrorMinimizing",
    "pil": "pil:PIL",
    "uc": "uc:UnlearnableClusters",
    "aue": "aue:AugmentedUnlearnable",
    "aap": "aap:AugmentedAdversarial",
    "tap": "tap:TargetedAdversarial",
    "hypo": "hypo:Hypocritical",
    "pue": "pue:ProvablyUnlearnable",
    "rem": "rem:RobustErrorMinimizing",
    "sem": "sem:StableErrorMinimizing",
    "sep": "sep:SelfEnsemble",
    "entf": "entf:EntangledFeatures",
    "beo": "beo:BayesErrorOptimization",
    "cp": "cp:ContrastivePoisoning",
    "gue": "gue:GameUnlearnable",
    "ar": "ar:Autoregressive",
    "classwise": "classwise:Classwise",
    "cuda": "cuda:Convolution",
    "lsp": "lsp:LSP",
    "ops": "ops:OnePixelShortcut",
    "em-ops": "em_ops:ErrorMinimizingShortcut",
    "tue": "tue:TransferableUnlearnable",
    "poscuda": "poscuda:PositionalConvolution",
    "mi-ue": "mi_ue:MutualInformationUnlearnable",
    "mtl-ue": "mtl_ue:MultiTaskUnlearnable",
    "bait": "bait:BoundTargets",
    "texture": "texture:ClassTexture",
    "texture-learned": "texture_learned:LearnedTexture",
}
"""Module below `hpcule.craft.methods`, and class."""


class Methods(Mapping[str, "type[Method[Any]]"]):
    """Methods by name. Its names are known without an import; a method is imported when it is asked for.

    Raises:
        HpculeError: the package that offers the method is broken; on access to the method, not to its name.
    """

    def __getitem__(self, name: str) -> type[Method[Any]]:
        return _load(name, *_offers()[name])

    def __contains__(self, name: object) -> bool:
        return name in _offers()

    def __iter__(self) -> Iterator[str]:
        return iter(_offers())

    def __len__(self) -> int:
        return len(_offers())


METHODS = Methods()


def find(name: str) -> type[Method[Any]]:
    """The method of that name.

    Raises:
        UsageError: there is none.
        HpculeError: the package that offers it is broken.
    """
    if name not in METHODS:
        raise UsageError(unknown("method", name, METHODS))
    return METHODS[name]


def usable() -> tuple[dict[str, type[Method[Any]]], list[str]]:
    """All methods that can be imported, by name, and one line for each that cannot."""
    found, broken = {}, []
    for name in METHODS:
        try:
            found[name] = METHODS[name]
        except HpculeError as error:
            broken.append(str(error))
    return found, broken


@cache
def _offers() -> dict[str, list[EntryPoint]]:
    """Whatever is offered under each name: one entry, or several that clash."""
    modules = f"{__package__}.methods"
    offers = {name: [EntryPoint(name, f"{modules}.{place}", GROUP)] for name, place in BUILT_IN.items()}
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: (entry.name, entry.value)):
        offers.setdefault(entry.name, []).append(entry)
    return offers


def _load(name: str, entry: EntryPoint, *others: EntryPoint) -> type[Method[Any]]:
    """The class behind an entry point.

    Raises:
        HpculeError: several packages offer this name; the class cannot be imported, or is no complete method.
    """
    package = _package(entry)
    if others:
        packages = ", ".join([package, *map(_package, others)])
        raise HpculeError(f"method '{name}' is offered several times, by {packages}: uninstall all but one")
    try:
        found: object = entry.load()
    except Exception as error:
        if name in BUILT_IN:
            raise
        reason = one_line(f"{type(error).__name__}: {error}")
        raise HpculeError(
            f"method '{name}' of {package} cannot be imported ({reason}): update or uninstall it"
        ) from error
    return _checked(found, f"method '{name}' of {package}: {entry.value}")


def _checked(found: object, what: str) -> type[Method[Any]]:
    """The same object, if it is a class with all that a method needs."""
    from hpcule.craft.method import Method

    remedy = "docs/plug-ins.md says what a method needs"
    if not isinstance(found, type) or not issubclass(found, Method):
        raise HpculeError(f"{what} is no subclass of hpcule.craft.method.Method; {remedy}")
    parts = [part for part in ("facts", "config_class", "presets") if not hasattr(found, part)]
    parts += sorted(found.__abstractmethods__)
    if parts:
        raise HpculeError(f"{what} lacks {', '.join(parts)}; {remedy}")
    return found


def _package(entry: EntryPoint) -> str:
    """Who offers a method, for a message."""
    return f"the package {entry.dist.name}" if entry.dist else "hpcule itself"


def configure(
    name: str, data: str, *, preset: Preset | None, file: Mapping[str, object], overrides: Sequence[str]
) -> CraftConfig:
    """The configuration of a run: the paper's defaults < its variants < preset < file < overrides.

    Raises:
        UsageError: an unknown method, preset or setting, or a value out of range.
    """
    from hpcule.craft.config import CraftConfig

    method = find(name)
    tree = with_overrides(merged({"method": {"name": name}}, file), overrides)
    chosen = preset or tree.get("preset", "paper")
    if chosen not in ("paper", "small", "smoke"):
        raise UsageError(unknown("preset", str(chosen), ("paper", "small", "smoke")))
    settings = tree["method"]
    if not isinstance(settings, Mapping) or settings["name"] != name:
        raise UsageError(f"method: the configuration is for another method than '{name}'")
    below = defaults(method, chosen, settings)
    filled = build_config(method.config_class, merged(below, settings), "method.").resolved()
    if not method.seed_is_secret():
        tree = {"seed": 0, **tree}
    return build_config(CraftConfig, {**tree, "data": data, "preset": chosen, "method": filled})


def defaults(method: type[Method[Any]], preset: Preset, settings: Mapping[str, object]) -> Tree:
    """What a preset, and the variants that these settings choose, put in place of the paper's defaults."""
    below: Tree = {}
    for setting, values in method.variants.items():
        below = merged(below, values.get(str(settings.get(setting)), {}))
    return merged(below, method.presets.get(preset, {}))
