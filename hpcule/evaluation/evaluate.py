"""The protection report: victims on the protected set, compared with the same victims on both controls."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from hpcule.config.errors import DataError, UsageError, one_line
from hpcule.config.tree import to_tree
from hpcule.config.version import __version__
from hpcule.craft.measured import measured_sentences
from hpcule.craft.table import find
from hpcule.data.source import Ids, Source
from hpcule.data.tiles import Tiles
from hpcule.evaluation.bench import Bench
from hpcule.evaluation.cost import Outlook, victim_seconds
from hpcule.evaluation.matrix import CellResult, Matrix, MatrixCell, Subject
from hpcule.evaluation.pictures import Pictures
from hpcule.evaluation.results import (
    DataDocument,
    PerturbationDocument,
    ProtectionDocument,
    RecipeDocument,
    SetDocument,
    VictimDocument,
    percent,
)
from hpcule.evaluation.samples import audibility, measure_structure, pictures, visibility
from hpcule.evaluation.suites import EvaluateConfig
from hpcule.measure.accuracy import chance_level, has_learnt, paired_difference, summarise
from hpcule.measure.perceptual import Perceptual
from hpcule.store.fingerprint import require_same_samples
from hpcule.store.read import StoreReader
from hpcule.victim.kinds import TITLES, Kind
from hpcule.victim.recipe import Recipe
from hpcule.victim.training_data import TrainingData


def evaluate(config: EvaluateConfig, bench: Bench) -> tuple[ProtectionDocument, Pictures]:
    """Train every victim of the configuration that has not been, and put the results together.

    Args:
        config: recipes, seeds, and the victim's own settings.
        bench: the victims' results go to its folder `cells`; those that are there are not trained again.

    Raises:
        DataError: there are no labels to train victims with.
        UsageError: more samples asked for than there are, or a recipe that is for images.
        StoreError: the store was made for other samples, or a victim's file is damaged.
    """
    victims = Victims(config, bench)
    return victims.results(foreseen([victims], bench.plan))


class Victims:
    """Every victim of a configuration on one store.

    Attributes:
        config: recipes, seeds, and the victim's own settings.
        bench: the store, and what it is measured with.
        task: what the victims share.
    """

    def __init__(self, config: EvaluateConfig, bench: Bench) -> None:
        """Check that they can be trained.

        Raises:
            DataError, UsageError, StoreError: see `evaluate`.
        """
        source, test = bench.source, bench.test
        if source.rate is not None and set(config.recipes) != {Recipe()}:
            names = [recipe.name for recipe in config.recipes]
            raise UsageError(
                f"recipes={names} are for images, and {source.name} holds recordings: --set recipes=[plain]"
            )
        if source.labels is None or test.labels is None:
            raise DataError(
                f"{source.name} has no labels: victims are trained with labels; put the images in class folders"
            )
        if bench.world.leads:
            require_same_samples(bench.store.manifest, source)
        self.config, self.bench = config, bench
        self.task = Subject(config.victim, bench.store, training_data(config, source), test)
        self._matrix = Matrix(self.task, bench.out / "cells")
        self._cells = [
            MatrixCell(recipe, kind, seed)
            for recipe in config.recipes
            for kind in kinds_of(config, recipe)
            for seed in config.seeds
        ]

    def missing(self) -> dict[MatrixCell, str]:
        """The victims that are not trained yet, and the names of their results; all ranks call it."""
        return self._matrix.missing(self._cells, self.bench.world)

    def train(self, outlook: Outlook | None = None) -> list[RecipeDocument]:
        """Train those that are missing; what each recipe came to.

        Args:
            outlook: of the victims of one or several stores; None: nobody wants to know.

        Raises:
            StoppedError: `bench.stop` was set; what is done is kept.
            UsageError, StoreError: see `evaluate`.
        """
        bench = self.bench
        trained = self._matrix.train(self._cells, bench.world, bench.report, bench.stop, outlook, bench.left)
        assert bench.test.labels is not None
        chance = chance_level(bench.test.labels)
        return [_recipe(self.config, recipe, trained, chance) for recipe in self.config.recipes]

    def results(self, outlook: Outlook | None) -> tuple[ProtectionDocument, Pictures]:
        """Train those that are missing, and put the results together; see `evaluate` and `train`."""
        config, store, source, world = self.config, self.bench.store, self.bench.source, self.bench.world
        # Its weights are read before anything is trained, since they may not be there.
        perceptual = Perceptual(Path(config.lpips), world.device) if config.lpips else None
        recipes = self.train(outlook)
        results = _results(store, recipes, _data(source, self.bench.test, self.task.data.ids))
        if config.left_out:
            results["left_out"] = config.left_out
        if source.rate is None:
            results["visibility"] = visibility(store, source, perceptual)
        else:
            results["audibility"] = audibility(store, source, source.rate)
        if world.leads:
            # Seconds of work on one rank, which alone writes the results.
            results["structure"] = measure_structure(store, source)
        return results, pictures(store, source)


def foreseen(several: Sequence[Victims], plan: Callable[[int, float], None] | None) -> Outlook | None:
    """What the missing victims of stores of the same samples take, for the ranks that train them; all ranks call it.

    Args:
        several: the victims of each store, in the order in which they are trained.
        plan: see `Setup.plan`.

    Returns:
        None where `plan` is None, or nothing is missing.

    Raises:
        UsageError, DataError: a recipe cannot be trained on these samples.
    """
    if plan is None:
        return None
    names, own, world, task = set[str](), list[Recipe](), several[0].bench.world, several[0].task
    recipes = dict[Recipe, None]()
    for victims in several:
        missing = {cell: name for cell, name in victims.missing().items() if name not in names}
        names |= set(missing.values())
        own += [cell.recipe for cell in missing][world.rank :: world.size]
        recipes |= dict.fromkeys(cell.recipe for cell in missing)
    if not names:
        return None
    outlook = Outlook(victim_seconds(task.victim, recipes, task.data, task.test, world), own)
    plan(len(names), max(world.gather(outlook.seconds_left())))
    return outlook


def training_data(config: EvaluateConfig, source: Source) -> TrainingData:
    """What the victims of an evaluation train on.

    Raises:
        UsageError: more samples are asked for than there are.
    """
    return TrainingData.of(source, config.samples, config.world.resident_mebibytes * 2**20)


def kinds_of(config: EvaluateConfig, recipe: Recipe) -> tuple[Kind, ...]:
    """The kinds of training set of a recipe's victims."""
    spectrum: tuple[Kind, ...] = ("spectrum",) if config.equal_spectrum else ()
    part: tuple[Kind, ...] = () if recipe.share is None else ("part",)
    return ("clean", "noise", *spectrum, "protected", *part)


def _recipe(
    config: EvaluateConfig, recipe: Recipe, trained: dict[MatrixCell, CellResult], chance: float
) -> RecipeDocument:
    sets: list[SetDocument] = []
    lasts: dict[Kind, list[float]] = {}
    for kind in kinds_of(config, recipe):
        victims = [_victim(trained[MatrixCell(recipe, kind, seed)], seed) for seed in config.seeds]
        lasts[kind] = [victim["last"] for victim in victims]
        summary = summarise(lasts[kind])
        sets.append(
            {"set": kind, "title": TITLES[kind], "seeds": victims, "mean": summary.mean, "interval": summary.interval}
        )
    found: RecipeDocument = {
        "name": recipe.name,
        "title": recipe.title,
        "settings": to_tree(recipe.applied(config.victim)),
        "sets": sets,
    }
    if recipe.share is not None:
        gain = paired_difference(lasts["protected"], lasts["part"])
        found["gain"] = {"share": recipe.share, "mean": gain.mean, "interval": gain.interval}
    clean = summarise(lasts["clean"]).mean
    if not has_learnt(clean, chance):
        reached = f"the clean control of recipe {recipe.name} reached {percent(clean)}"
        found["invalid_because"] = f"{reached}, chance is {percent(chance)}"
    return found


def _victim(result: CellResult, seed: int) -> VictimDocument:
    trained = result.victim
    victim: VictimDocument = {
        "seed": seed,
        "last": trained.last.test,
        "best": trained.best.test,
        "best_epoch": trained.best.epoch,
        "train_last": trained.last.train,
        "batch_taken": trained.batch_taken,
        "steps": trained.steps,
        "samples_seen": trained.samples_seen,
        "seconds": round(trained.seconds, 2),
        "curve": trained.document()["curve"],
    }
    if trained.alignment is not None and trained.uniformity is not None:
        victim |= {"alignment": trained.alignment, "uniformity": trained.uniformity}
    if result.ranking is not None:
        victim["ranking"] = result.ranking
    if result.linearity is not None:
        victim["linearity"] = result.linearity
    return victim


def _results(store: StoreReader, recipes: list[RecipeDocument], data: DataDocument) -> ProtectionDocument:
    means = {recipe["name"]: {entry["set"]: entry["mean"] for entry in recipe["sets"]} for recipe in recipes}
    whole = [recipe for recipe in recipes if "gain" not in recipe]
    valid = [recipe for recipe in whole if "invalid_because" not in recipe]
    worst = max((recipe["name"] for recipe in valid or whole), key=lambda name: means[name]["protected"])
    return {
        "kind": "evaluate",
        "hpcule": __version__,
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
        "status": "done" if valid else "invalid",
        "reduced": store.manifest.reduced,
        "protection": _protection(store),
        "data": data,
        "recipes": recipes,
        "controls": {name: {s: mean for s, mean in sets.items() if s != "protected"} for name, sets in means.items()},
        "worst_case": {"recipe": worst, "protected": means[worst]["protected"]},
        "invalid_because": None if valid else whole[0]["invalid_because"],
    }


def _protection(store: StoreReader) -> PerturbationDocument:
    manifest = store.manifest
    facts = find(manifest.method).facts
    settings = {name: value for name, value in manifest.config.get("method", {}).items() if name != "checkpoint"}
    return {
        "method": manifest.method,
        "title": facts.title,
        "unit": manifest.unit,
        "groups": manifest.groups,
        "epsilon": manifest.epsilon,
        "norm": manifest.norm,
        "free_pixels": manifest.free_pixels,
        "levels": manifest.levels,
        "preset": str(manifest.config.get("preset", "unknown")),
        "n": manifest.n,
        "settings": settings,
        "facts": {
            "data": facts.data,
            "task": facts.task,
            "intent": facts.intent,
            "needs_labels": facts.needs_labels,
            "bounded": facts.bounded,
            "needs_surrogate": facts.needs_surrogate,
            "claimed": facts.claimed,
            "measured": measured_sentences(manifest.method),
            "paper": facts.paper,
            "weaknesses": facts.weaknesses,
        },
    }


def _data(source: Source, test: Source, ids: Ids) -> DataDocument:
    assert test.labels is not None
    facts: DataDocument = {
        "name": source.name,
        "classes": source.class_count,
        "class_names": [one_line(name) for name in source.class_names or ()],
        "train": len(ids),
        "test": len(test),
        "shape": list(source.shape),
        "chance": chance_level(test.labels),
    }
    if source.rate is not None:
        facts["rate"] = source.rate
    if isinstance(source, Tiles):
        facts["tiles"] = True
    return facts
