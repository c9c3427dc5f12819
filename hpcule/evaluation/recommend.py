"""A tournament of methods on some of the samples, within a budget of time."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import Literal

from hpcule.config.errors import DataError, StoppedError, UsageError
from hpcule.config.run import Preset, WorldConfig
from hpcule.config.tree import to_tree, unknown
from hpcule.craft.config import CraftConfig
from hpcule.craft.measured import cost_order
from hpcule.craft.method import Step
from hpcule.craft.run import craft
from hpcule.craft.table import METHODS, configure, usable
from hpcule.data.opening import Opening
from hpcule.data.subset import at_most
from hpcule.evaluation.bench import Setup, prefixed
from hpcule.evaluation.comparison import StoresDocument, protects, summarise_stores
from hpcule.evaluation.evaluate import evaluate
from hpcule.evaluation.pictures import Pictures
from hpcule.evaluation.results import ProtectionDocument
from hpcule.evaluation.suites import EvaluateConfig
from hpcule.store.read import StoreReader
from hpcule.store.vault import Vault
from hpcule.victim.config import VictimConfig
from hpcule.victim.recipe import Recipe
from hpcule.world.group import World
from hpcule.world.signals import StopFlag


def candidates() -> tuple[str, ...]:
    """Methods for images that need no checkpoint, in the order of their cost at the preset `small`."""
    methods, _ = usable()
    fit = [name for name, method in methods.items() if method.facts.data == "images"]
    return tuple(sorted((name for name in fit if not methods[name].facts.needs_checkpoint), key=cost_order))


@dataclass(frozen=True, kw_only=True)
class RecommendConfig(Opening):
    """How the samples are opened, which methods take part, and how they are measured."""

    methods: tuple[str, ...] = field(default_factory=candidates)
    """Methods in the order in which they are tried; those at the end may not be reached."""
    preset: Preset = "small"
    samples: int = 3000
    """Number of samples to craft for and train on, spread evenly over the data; all where there are fewer."""
    victim: VictimConfig = field(default_factory=lambda: VictimConfig(network="resnet-tiny", steps=600))
    recipes: tuple[Recipe, ...] = tuple(map(Recipe.parse, ("plain", "grayscale", "jpeg-10")))
    seeds: tuple[int, ...] = (0,)
    world: WorldConfig = field(default_factory=WorldConfig)

    def __post_init__(self) -> None:
        """Check ranges and names."""
        super().__post_init__()
        if self.subset is not None:
            raise ValueError(f"subset={self.subset}: recommend takes samples={self.samples} of the data; set samples")
        for name in self.methods:
            if name not in METHODS:
                raise UsageError(unknown("method", name, METHODS))
        if not self.methods or len(set(self.methods)) < len(self.methods):
            raise ValueError(f"methods={list(self.methods)}: at least one, and none twice")
        self.evaluation()

    def evaluation(self) -> EvaluateConfig:
        """How each store is measured."""
        return EvaluateConfig(victim=self.victim, recipes=self.recipes, seeds=self.seeds, world=self.world)


class RecommendationDocument(StoresDocument):
    """The whole of results.json of a tournament: `recommended` is None where none protects, or no control learnt."""

    kind: Literal["recommend"]
    budget_minutes: float
    recommended: str | None
    unreached: list[str]
    """Methods that time did not suffice for; a larger budget continues with the first of them."""
    refused: dict[str, str]
    """Method -> why it cannot take these samples."""


class Deadline(StopFlag):
    """Set by a signal, or by the clock from `end` of time.monotonic on."""

    end = float("inf")

    def __bool__(self) -> bool:
        return super().__bool__() or time.monotonic() >= self.end


def recommend(
    config: RecommendConfig,
    minutes: float,
    data: str,
    setup: Setup,
) -> tuple[RecommendationDocument, dict[str, tuple[ProtectionDocument, Pictures]]]:
    """Craft and evaluate one method after the other until the time is spent.

    A craft that the clock stops has written a checkpoint, and each victim is a file: the same command with a larger
    budget goes on where this one was. The first method is measured however long it takes.

    Args:
        config: who takes part, and how they are measured.
        minutes: the budget.
        data: how the source is called on the command line.
        setup: all clean samples, opened as the configuration says; the stores go to its folder `stores`, the victims'
            results to `cells`.

    Raises:
        DataError: no method can take these samples.
        StoppedError: stopped by a signal.
    """
    end = time.monotonic() + 60 * minutes
    samples, subset = at_most(setup.source, config.samples)
    setup = replace(setup, source=samples)
    world = setup.world
    opening = replace(config.opening, subset=subset)
    evaluated: dict[str, tuple[ProtectionDocument, Pictures]] = {}
    refused: dict[str, str] = {}
    waiting, stop, longest = list(config.methods), Deadline(), 0.0
    while waiting and not _any(bool(stop), world):
        name = waiting[0]
        try:
            _craft(config, name, data, opening, setup, stop)
        except (DataError, UsageError) as error:
            refused[waiting.pop(0)] = str(error)
            continue
        except StoppedError:
            break
        if _any(bool(stop.name), world):
            break
        began, store = time.monotonic(), StoreReader(_vault(setup, name))
        evaluated[name] = evaluate(config.evaluation(), setup.bench(name, store))
        longest = max(longest, *world.maximum([time.monotonic() - began]))
        stop.end = end - longest
        waiting.pop(0)
    if _any(bool(stop.name), world):
        raise StoppedError("stopped by a signal: run the same command again to continue")
    if not evaluated:
        raise DataError("no method can take these samples: " + "; ".join(refused.values()))
    compared = summarise_stores({name: results for name, (results, _) in evaluated.items()})
    recommendation: RecommendationDocument = {
        "kind": "recommend",
        **compared,
        "budget_minutes": minutes,
        "recommended": compared["stores"][0]["name"] if protects(compared) else None,
        "unreached": waiting,
        "refused": refused,
    }
    return recommendation, evaluated


def _craft(config: RecommendConfig, name: str, data: str, opening: Opening, setup: Setup, stop: Deadline) -> None:
    file = {"world": to_tree(config.world), **to_tree(opening)}
    settings: CraftConfig = configure(name, data, preset=config.preset, file=file, overrides=[])
    tell = prefixed(name, setup.report)

    def progress(step: Step) -> None:
        tell(step.stage, step.done, step.total)

    craft(settings, setup.source, _vault(setup, name), setup.world, stop, resume=True, report=progress)


def _vault(setup: Setup, name: str) -> Vault:
    return Vault(setup.out / "stores" / name)


def _any(flag: bool, world: World) -> bool:
    """Whether it is true on any rank, which all of them learn."""
    return world.maximum([float(flag)])[0] > 0


def advice(results: RecommendationDocument, data: str) -> list[str]:
    """What to do next, and who could not take part.

    Args:
        results: what became of the methods.
        data: how the source is called on the command line.
    """
    if results["recommended"] is None:
        said = ["None of the methods that were tried can be recommended."]
    else:
        said = [
            f"Recommended: {results['recommended']}. Craft it for all samples with its authors' settings, and "
            f"measure it with a standard suite: hpcule craft {results['recommended']} --data {data} --out STORE"
        ]
    if results["unreached"]:
        said.append(
            f"Not reached within {results['budget_minutes']:g} minutes: {', '.join(results['unreached'])}. The "
            "same command with a larger --budget goes on there."
        )
    said += [f"{name} cannot take these samples: {why}." for name, why in results["refused"].items()]
    return said
