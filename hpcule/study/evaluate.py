"""The protection report: victims on the protected set beside the same victims on both controls."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from hpcule import __version__
from hpcule.config.errors import DataError, UsageError
from hpcule.config.run import WorldConfig
from hpcule.craft.methods import find
from hpcule.data.keyed import key, order
from hpcule.data.source import Ids, Source
from hpcule.measure.accuracy import chance_level, has_learnt, summarise
from hpcule.store.fingerprint import require_same_samples
from hpcule.store.read import StoreReader
from hpcule.study.pictures import Pictures
from hpcule.study.results import DataFacts, Protection, Recipe, Results, SetName, Victim, VictimSet
from hpcule.study.samples import audibility, pictures, visibility
from hpcule.victim.config import RECIPES, VictimConfig, check_recipes
from hpcule.victim.published import Publish, Published, clean, random_noise
from hpcule.victim.train import VictimResult, train_victim
from hpcule.world.group import World

SETS: dict[SetName, str] = {"clean": "clean control", "noise": "random-noise control", "protected": "protected"}


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """What is trained to measure a store's protection."""

    victim: VictimConfig = field(default_factory=VictimConfig)
    recipes: tuple[str, ...] = ("plain",)
    """plain (no augmentation), crop-flip."""
    seeds: tuple[int, ...] = (0, 1, 2)
    samples: int | None = None
    """Train on so many samples, the same for all victims; None: on all."""
    world: WorldConfig = field(default_factory=WorldConfig)

    def __post_init__(self) -> None:
        """Check names and ranges."""
        check_recipes(self.recipes)
        if not self.seeds or not self.recipes:
            raise ValueError("seeds and recipes must not be empty")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds={list(self.seeds)}: the same seed twice is one measurement")


SUITES: dict[str, dict[str, Any]] = {
    "quick": {"recipes": ["plain"], "seeds": [0]},
    "standard": {"recipes": ["plain", "crop-flip"], "seeds": [0, 1, 2]},
    "full": {"recipes": ["plain", "crop-flip"], "seeds": [0, 1, 2, 3, 4], "victim": {"network": "resnet18"}},
}


AUDIO_VICTIM = {"network": "mel-cnn", "optimizer": "adam", "learning_rate": 0.002}


def suite(name: str, source: Source) -> dict[str, Any]:
    """Settings of a suite for images, or for recordings: neither cropped nor flipped, and for a network of theirs."""
    settings = SUITES[name]
    return settings if source.rate is None else {**settings, "recipes": ["plain"], "victim": AUDIO_VICTIM}


def evaluate(
    config: EvaluateConfig,
    store: StoreReader,
    source: Source,
    test: Source,
    world: World,
    report: Callable[[str, int, int], None],
) -> tuple[Results, Pictures]:
    """Train every victim of the configuration and put the results together; each rank takes whole victims.

    Args:
        config: recipes, seeds, and the victim's own settings.
        store: a complete store.
        source: the clean samples that it was made for, labelled.
        test: clean test samples of the same task.
        world: its ranks share out the victims.
        report: called with what is being trained, and how many of this rank's epochs are done and in all.

    Raises:
        DataError: there are no labels to train victims with.
        UsageError: more samples asked for than there are, or a recipe that is for images.
        StoreError: the store was made for other samples.
    """
    if source.rate is not None and "crop-flip" in config.recipes:
        raise UsageError(
            f"the recipe crop-flip is for images, and {source.name} holds recordings: --set recipes=[plain]"
        )
    if source.labels is None or test.labels is None:
        raise DataError(
            f"{source.name} has no labels: victims are trained with labels; put the images in class folders"
        )
    if world.leads:
        require_same_samples(store.manifest, source)
    ids = subset(source, config.samples)
    resident = config.world.resident_mebibytes * 2**20
    clean_test = Published(test, resident=resident)
    items = [(r, s, seed) for r in config.recipes for seed in config.seeds for s in SETS]
    mine = items[world.rank :: world.size]
    trained: dict[tuple[str, SetName, int], VictimResult] = {}
    for number, (recipe, name, seed) in enumerate(mine):
        train = Published(source, _publish(name, store, seed, source), ids=ids, resident=resident)
        settings = _settings(config, recipe)

        def progress(done: int, total: int, number: int = number, label: str = f"{recipe}, {SETS[name]}") -> None:
            report(label, number * total + done, len(mine) * total)

        trained[recipe, name, seed] = train_victim(settings, train, clean_test, world.alone(), seed, progress)
    everything = {item: result for part in world.gather(trained) for item, result in part.items()}
    recipes = [_recipe(config, recipe, everything) for recipe in config.recipes]
    results = _results(store, recipes, _data(source, test, ids))
    if source.rate is None:
        results["visibility"] = visibility(store, source)
    else:
        results["audibility"] = audibility(store, source, source.rate)
    return results, pictures(store, source)


def subset(source: Source, samples: int | None) -> Ids:
    """Ids that victims train on, the same for all of them; None: all.

    Raises:
        UsageError: more than there are, or too few.
    """
    ids = np.arange(len(source), dtype=np.int64)
    if samples is None:
        return ids
    if not 1 < samples <= len(source):
        raise UsageError(f"samples={samples}: {source.name} has {len(source)}")
    return np.sort(order(key(0, "victim subset"), ids)[:samples])


def _publish(name: SetName, store: StoreReader, seed: int, source: Source) -> Publish:
    if name == "protected":
        return store.published
    return clean if name == "clean" else random_noise(store, seed, source)


def _settings(config: EvaluateConfig, recipe: str) -> VictimConfig:
    return dataclasses.replace(config.victim, augment="crop-flip" if recipe == "crop-flip" else "none")


def _recipe(config: EvaluateConfig, name: str, trained: dict[tuple[str, SetName, int], VictimResult]) -> Recipe:
    sets: list[VictimSet] = []
    for set_name, title in SETS.items():
        victims = [_victim(trained[name, set_name, seed]) for seed in config.seeds]
        summary = summarise([victim["last"] for victim in victims])
        sets.append(
            {"set": set_name, "title": title, "seeds": victims, "mean": summary.mean, "interval": summary.interval}
        )
    settings = dataclasses.asdict(_settings(config, name))
    return {"name": name, "title": RECIPES[name], "settings": settings, "sets": sets}


def _victim(result: VictimResult) -> Victim:
    return {
        "seed": result.seed,
        "last": result.last.test,
        "best": result.best.test,
        "best_epoch": result.best.epoch,
        "train_last": result.last.train,
        "steps": result.steps,
        "seconds": round(result.seconds, 2),
        "curve": [{"epoch": e.epoch, "train": e.train, "test": e.test} for e in result.curve],
    }


def _results(store: StoreReader, recipes: list[Recipe], data: DataFacts) -> Results:
    means = {recipe["name"]: {entry["set"]: entry["mean"] for entry in recipe["sets"]} for recipe in recipes}
    worst = max(means, key=lambda name: means[name]["protected"])
    invalid = _invalid(means, data["chance"])
    return {
        "kind": "evaluate",
        "hpcule": __version__,
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
        "status": "invalid" if invalid else "done",
        "reduced": store.manifest.reduced,
        "protection": _protection(store),
        "data": data,
        "recipes": recipes,
        "controls": {name: {s: mean for s, mean in sets.items() if s != "protected"} for name, sets in means.items()},
        "worst_case": {"recipe": worst, "protected": means[worst]["protected"]},
        "invalid_because": invalid,
    }


def _invalid(means: dict[str, dict[SetName, float]], chance: float) -> str | None:
    for name, sets in means.items():
        if not has_learnt(sets["clean"], chance):
            reached = f"the clean control of recipe {name} reached {100 * sets['clean']:.1f}%"
            return f"{reached}, chance is {100 * chance:.1f}%"
    return None


def _protection(store: StoreReader) -> Protection:
    manifest = store.manifest
    facts = dataclasses.asdict(find(manifest.method).facts)
    settings = {name: value for name, value in manifest.config["method"].items() if name != "checkpoint"}
    return {
        "method": manifest.method,
        "title": facts["title"],
        "unit": manifest.unit,
        "groups": manifest.groups,
        "epsilon": manifest.epsilon,
        "norm": manifest.norm,
        "free_pixels": manifest.free_pixels,
        "levels": manifest.levels,
        "preset": manifest.config["preset"],
        "n": manifest.n,
        "settings": settings,
        "facts": {
            name: facts[name]
            for name in ("data", "task", "intent", "needs_labels", "bounded", "needs_surrogate", "robust")
        }
        | {"paper": facts["paper"], "weaknesses": facts["weaknesses"]},  # type: ignore[typeddict-item]
    }


def _data(source: Source, test: Source, ids: Ids) -> DataFacts:
    assert test.labels is not None
    facts: DataFacts = {
        "name": source.name,
        "classes": source.class_count,
        "class_names": list(source.class_names or ()),
        "train": len(ids),
        "test": len(test),
        "shape": list(source.shape),
        "chance": chance_level(test.labels),
    }
    if source.rate is not None:
        facts["rate"] = source.rate
    return facts
