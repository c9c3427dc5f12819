"""The matrix of an evaluation: one victim a cell, each with a file of its own, so that a restart trains the missing."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch

from hpcule.config.documents import checked
from hpcule.config.tree import Tree
from hpcule.data.source import Source
from hpcule.evaluation.cost import Outlook
from hpcule.measure.linearity import Linearity, linearity
from hpcule.store.read import StoreReader
from hpcule.tasks.table import task_of
from hpcule.victim.config import VictimConfig
from hpcule.victim.job import Fingerprints, VictimJob
from hpcule.victim.keeper import Keeper
from hpcule.victim.kept import Kept
from hpcule.victim.kinds import Kind
from hpcule.victim.published import Published
from hpcule.victim.recipe import Recipe
from hpcule.victim.result import ResultDocument, VictimResult
from hpcule.victim.training import longer
from hpcule.victim.training_data import TrainingData
from hpcule.world.group import World
from hpcule.world.signals import StopFlag

MOST_TESTS = 1000
"""Largest number of test samples on which linearity is measured."""


@dataclass(frozen=True)
class MatrixCell:
    """One victim of an evaluation: its recipe, the kind of its training set, its seed.

    A `longer` one is trained again with more steps, see `hpcule.victim.training.longer`.
    """

    recipe: Recipe
    kind: Kind
    seed: int
    longer: bool = False


class CellResultDocument(ResultDocument):
    """A cell's result as JSON holds it; see `CellResult`."""

    recipe: str
    set: Kind
    linearity: Linearity | None


@dataclass(frozen=True)
class CellResult:
    """What a cell's victim reached.

    Attributes:
        recipe: the one by which it was trained first; cells whose victims are the same share a result.
        kind: of its training set.
        victim: its training.
        linearity: how linear it is; None where no network is trained as a whole, and for recordings.
    """

    recipe: str
    kind: Kind
    victim: VictimResult
    linearity: Linearity | None

    def document(self) -> CellResultDocument:
        """The result for JSON."""
        return {
            "recipe": self.recipe,
            "set": self.kind,
            **self.victim.document(),
            "linearity": self.linearity,
        }

    @classmethod
    def of(cls, tree: Tree) -> CellResult:
        """Read what `document` wrote.

        Raises:
            ValueError: an entry is missing, or is not what it should be.
        """
        if any("measures" not in epoch for epoch in tree.get("curve", ())):
            raise ValueError("an earlier version measured accuracy alone")
        document: CellResultDocument = checked(tree, CellResultDocument)
        return cls(document["recipe"], document["set"], VictimResult.of(document), document["linearity"])


@dataclass(frozen=True)
class Subject:
    """What all cells of an evaluation share.

    Attributes:
        victim: their settings, but for what a recipe sets.
        store: complete.
        data: the clean samples that it was made for.
        test: clean test samples, labelled.
    """

    victim: VictimConfig
    store: StoreReader
    data: TrainingData
    test: Source

    def job(self, cell: MatrixCell) -> VictimJob:
        """The victim of a cell; where nothing is random, it is the same for all seeds."""
        draws = cell.kind not in ("clean", "protected") or cell.recipe.countermeasures.draws
        job = VictimJob.of(self.victim, cell.recipe, cell.kind, cell.seed if draws else 0)
        return replace(job, config=self._lengthened(job.config)) if cell.longer else job

    def settings(self, recipe: Recipe, *, longer: bool = False) -> VictimConfig:
        """The settings of a recipe's victims."""
        config = recipe.applied(self.victim)
        return self._lengthened(config) if longer else config

    def train(
        self, cell: MatrixCell, test: Published, world: World, report: Callable[[int, int], None], keeper: Keeper
    ) -> CellResult:
        """Train a cell's victim, and measure how linear its network is, where it has one.

        Raises:
            UsageError: its mixture leaves hardly any clean sample.
        """
        job = self.job(cell)
        network, result, test = job.train(self.data, self.store, test, world, report, keeper=keeper)
        linear = None
        if network is not None and job.config.task == "label" and self.test.rate is None:
            some = np.arange(min(len(test), MOST_TESTS), dtype=np.int64)
            images, labels = test.images(some, world.device)
            images = images.contiguous(memory_format=torch.channels_last)
            linear = linearity(network, images, labels, self.test.class_count)
        return CellResult(cell.recipe.name, cell.kind, result, linear)

    def _lengthened(self, config: VictimConfig) -> VictimConfig:
        return longer(config, len(self.data.ids))


class Matrix:
    """Results of cells, in a folder where each file is named by all that its victim depends on."""

    def __init__(self, task: Subject, folder: Path) -> None:
        """Take what the folder holds; it need not be there."""
        self._task, self._kept = task, Kept(folder, CellResult.document, CellResult.of)
        self._seen = Fingerprints.of(task.store, task.data, task.test)

    def train(
        self,
        cells: Sequence[MatrixCell],
        world: World,
        report: Callable[[str, int, int], None],
        stop: StopFlag | None = None,
        outlook: Outlook | None = None,
        left: Callable[[int, int, float], None] = lambda done, total, seconds: None,
    ) -> dict[MatrixCell, CellResult]:
        """Train what is not there yet, each rank whole victims, and return everything.

        Args:
            cells: what is asked for.
            world: the ranks.
            report: called with what this rank does, and how much of it is done and in all.
            stop: set where victims are to stop; None: signals set it.
            outlook: takes down what victims take; None: nobody wants to know.
            left: called with it; see `Setup.left`.

        Raises:
            StoppedError: stopped; what is done is kept.
            StoreError: a file is damaged, or cannot be written.
        """
        whole, resident = self._task.test, self._task.data.resident

        @cache
        def test_of(task: str) -> Published:
            return Published(whole, resident=resident, task=task_of(task, whole))

        names, first = self._names(cells)

        def train(cell: MatrixCell, number: int, count: int) -> CellResult:
            def progress(done: int, total: int) -> None:
                if outlook:
                    left(outlook.done, outlook.total, outlook.seconds_left(done / total))
                label = f"{cell.recipe.name}, {cell.kind}, seed {cell.seed}{', longer' if cell.longer else ''}"
                report(label, number * total + done, count * total)

            alone, began = world.alone(), time.monotonic()
            test = test_of(self._task.job(cell).config.task)
            result = self._task.train(cell, test, alone, progress, self._kept.keeper(names[cell], alone, stop))
            if outlook:
                outlook.note(time.monotonic() - began)
                left(outlook.done, outlook.total, outlook.seconds_left())
            return result

        found = self._kept.complete({cell: name for name, cell in first.items()}, world, train, stop)
        return {cell: found[first[names[cell]]] for cell in cells}

    def missing(self, cells: Sequence[MatrixCell], world: World) -> dict[MatrixCell, str]:
        """The cells that `train` would train, in its order, and the names of their results."""
        first = {cell: name for name, cell in self._names(cells)[1].items()}
        return {cell: first[cell] for cell in self._kept.missing(first, world)}

    def _names(self, cells: Sequence[MatrixCell]) -> tuple[dict[MatrixCell, str], dict[str, MatrixCell]]:
        """Names of the cells' results, and the first cell of each name.

        Cells whose victims are the same, as the clean controls of mixtures, share the result of the first of them.
        """
        names = {cell: self._task.job(cell).key(self._seen) for cell in cells}
        first: dict[str, MatrixCell] = {}
        for cell, name in names.items():
            first.setdefault(name, cell)
        return names, first
