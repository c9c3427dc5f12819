"""The protection report: victims on the protected set, compared with the same victims on both controls."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from hpcule.config.errors import UsageError, one_line
from hpcule.config.version import __version__
from hpcule.craft.measured import measured_sentences, with_evidence
from hpcule.craft.table import find
from hpcule.data.source import Ids, Source
from hpcule.data.tiles import Tiles
from hpcule.evaluation.bench import Bench
from hpcule.evaluation.cost import Outlook, victim_seconds
from hpcule.evaluation.matrix import CellResult, Matrix, MatrixCell, Subject
from hpcule.evaluation.pictures import Pictures
from hpcule.evaluation.recipes import TrainedVictims, recipe_cells
from hpcule.evaluation.results import (
    DataDocument,
    PerturbationDocument,
    ProtectionDocument,
    RecipeDocument,
    most_successful,
)
from hpcule.evaluation.samples import audibility, measure_structure, pictures, visibility
from hpcule.evaluation.suites import EvaluateConfig
from hpcule.measure.accuracy import chance_level
from hpcule.measure.perceptual import Perceptual
from hpcule.store.fingerprint import require_same_samples
from hpcule.store.read import StoreReader
from hpcule.tasks.table import require_same_answers
from hpcule.victim.countermeasures.by_task import require_for_samples
from hpcule.victim.recipe import Recipe
from hpcule.victim.training import LONGER
from hpcule.victim.training_data import TrainingData


def evaluate(
    config: EvaluateConfig, bench: Bench, may_repeat: Callable[[Recipe], bool] = lambda recipe: True
) -> tuple[ProtectionDocument, Pictures]:
    """Train every victim of the configuration that has not been, and put the results together.

    Args:
        config: recipes, seeds, and the victim's own settings.
        bench: the victims' results go to its folder `cells`; those that are there are not trained again.
        may_repeat: see `Victims.train`.

    Raises:
        DataError: there are no labels to train victims with.
        UsageError: more samples asked for than there are, or a recipe that is for images.
        StoreError: the store was made for other samples, or a victim's file is damaged.
    """
    victims = Victims(config, bench)
    return victims.results(foreseen([victims], bench.plan), may_repeat)


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
        for recipe in config.recipes:
            require_for_samples(recipe.countermeasures, source)
        for task in dict.fromkeys(recipe.applied(config.victim).task for recipe in config.recipes):
            require_same_answers(task, source, test)
        if bench.world.leads:
            require_same_samples(bench.store.manifest, source)
        self.config, self.bench = config, bench
        self.task = Subject(config.victim, bench.store, training_data(config, source), test)
        self._matrix = Matrix(self.task, bench.out / "cells")
        self._cells = [cell for recipe in config.recipes for cell in recipe_cells(config, recipe)]

    def missing(self) -> dict[MatrixCell, str]:
        """The victims that are not trained yet, and the names of their results; all ranks call it."""
        return self._matrix.missing(self._cells, self.bench.world)

    def train(
        self, outlook: Outlook | None = None, may_repeat: Callable[[Recipe], bool] = lambda recipe: True
    ) -> list[RecipeDocument]:
        """Train those that are missing; what each recipe came to.

        Where the clean control of a recipe has not learnt, it is trained again with `LONGER` times as many steps; if
        that one has, so are the recipe's other victims, and these count.

        Args:
            outlook: of the victims of one or several stores; None: nobody wants to know.
            may_repeat: whether there is time for that, for a recipe; all ranks call it, and have to get the same
                answer.

        Raises:
            StoppedError: `bench.stop` was set; what is done is kept.
            UsageError, StoreError: see `evaluate`.
        """
        trained = TrainedVictims(self.config, self.task)
        trained.add(self._train(self._cells, outlook))
        again = [recipe for recipe in trained.to_repeat() if may_repeat(recipe)]
        for recipe in again:
            self.bench.tell(f"{trained.unlearnt(recipe)}: it is trained again with {LONGER} times as many steps")
        cells = [cell for recipe in again for cell in recipe_cells(self.config, recipe, longer=True)]
        # The controls first: without them the others show nothing.
        trained.add(self._train_again([cell for cell in cells if cell.kind == "clean"]))
        others = [cell for cell in cells if cell.kind != "clean" and trained.has_learnt(cell.recipe, longer=True)]
        trained.add(self._train_again(others))
        return [trained.document(recipe) for recipe in self.config.recipes]

    def _train(self, cells: Sequence[MatrixCell], outlook: Outlook | None) -> dict[MatrixCell, CellResult]:
        bench = self.bench
        return self._matrix.train(cells, bench.world, bench.report, bench.stop, outlook, bench.left)

    def _train_again(self, cells: Sequence[MatrixCell]) -> dict[MatrixCell, CellResult]:
        """Train longer victims, which no plan has counted, after a plan of their own."""
        if not cells:
            return {}
        bench, outlook = self.bench, None
        missing = list(self._matrix.missing(cells, bench.world))
        if bench.plan and missing:
            outlook = self._planned([cell.recipe for cell in missing], bench.plan)
        return self._train(cells, outlook)

    def _planned(self, recipes: Sequence[Recipe], plan: Callable[[int, float], None]) -> Outlook:
        task, world = self.task, self.bench.world
        each = victim_seconds(task.victim, dict.fromkeys(recipes), task.data, task.test, world)
        longer = {recipe: LONGER * seconds for recipe, seconds in each.items()}
        outlook = Outlook(longer, recipes[world.rank :: world.size])
        plan(len(recipes), max(world.gather(outlook.seconds_left())))
        return outlook

    def results(
        self, outlook: Outlook | None, may_repeat: Callable[[Recipe], bool] = lambda recipe: True
    ) -> tuple[ProtectionDocument, Pictures]:
        """Train those that are missing, and put the results together; see `evaluate` and `train`."""
        config, store, source, world = self.config, self.bench.store, self.bench.source, self.bench.world
        # Its weights are read before anything is trained, since they may not be there.
        perceptual = Perceptual(Path(config.lpips), world.device) if config.lpips else None
        recipes = self.train(outlook, may_repeat)
        results = _results(store, recipes, _data(source, self.bench.test, self.task.data.ids))
        if config.left_out:
            results["left_out"] = config.left_out
        if source.rate is None:
            results["visibility"] = visibility(store, source, perceptual)
        else:
            results["audibility"] = audibility(store, source, source.rate)
        if world.leads and source.labels is not None:
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


def _results(store: StoreReader, recipes: list[RecipeDocument], data: DataDocument) -> ProtectionDocument:
    means = {recipe["name"]: {entry["set"]: entry["mean"] for entry in recipe["sets"]} for recipe in recipes}
    whole = [recipe for recipe in recipes if "gain" not in recipe]
    valid = [recipe for recipe in whole if "invalid_because" not in recipe]
    worst = most_successful(valid or whole)["name"]
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
            "claimed": with_evidence(manifest.method, facts.claimed),
            "measured": measured_sentences(manifest.method),
            "paper": facts.paper,
            "weaknesses": facts.weaknesses,
        },
    }


def _data(source: Source, test: Source, ids: Ids) -> DataDocument:
    facts: DataDocument = {
        "name": source.name,
        "classes": source.class_count,
        "class_names": [one_line(name) for name in source.class_names or ()],
        "train": len(ids),
        "test": len(test),
        "shape": list(source.shape),
        "chance": chance_level(test.labels) if test.labels is not None else 0.0,
    }
    if source.rate is not None:
        facts["rate"] = source.rate
    if source.depth is not None:
        facts["depth"] = source.depth
    if isinstance(source, Tiles):
        facts["tiles"] = True
    return facts
