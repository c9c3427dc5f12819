"""The matrix of an evaluation: one victim a cell, each with a file of its own, so that a restart trains the missing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from hpcule.config.digest import digest
from hpcule.config.tree import to_tree
from hpcule.data.source import Source
from hpcule.evaluation.kept import Found, Kept, checkpoints, digests
from hpcule.evaluation.results import SetName
from hpcule.measure.linearity import linearity
from hpcule.measure.ranking import ranking
from hpcule.store.read import StoreReader
from hpcule.victim.config import VictimConfig
from hpcule.victim.network import is_fast
from hpcule.victim.published import Published, noise_basis
from hpcule.victim.recipe import with_recipe, without_mixture
from hpcule.victim.result import VictimResult
from hpcule.victim.testing import answers
from hpcule.victim.training import train_victim
from hpcule.victim.training_data import TrainingData
from hpcule.world.group import World

MOST_TESTS = 1000
"""Of which linearity is measured."""


@dataclass(frozen=True)
class MatrixCell:
    """One victim: its recipe, what it is trained on, its seed."""

    recipe: str
    set: SetName
    seed: int

    @property
    def same_as(self) -> MatrixCell:
        """The cell of the very same victim: a clean control knows no mixture."""
        return dataclasses.replace(self, recipe=without_mixture(self.recipe)) if self.set == "clean" else self


@dataclass(frozen=True)
class Task:
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

    def train(
        self, cell: MatrixCell, test: Published, world: World, report: Callable[[int, int], None]
    ) -> tuple[VictimResult, Found]:
        """Train a cell's victim, and measure how its network, where it has one, ranks samples and how linear it is.

        Raises:
            UsageError: its mixture leaves hardly any clean sample.
        """
        config = with_recipe(self.victim, cell.recipe)
        config, train, owned = self.data.training_set(config, cell.set, self.store, cell.recipe, cell.seed)
        network, result = train_victim(config, train, test, world, cell.seed, report, owned)
        if network is None:
            return result, {}
        everything = np.arange(len(test), dtype=np.int64)
        parts = zip(*answers(network, test, everything, world.device, fast=is_fast(config, world.device)), strict=True)
        measured: Found = {"ranking": ranking(*(torch.cat(part) for part in parts))}
        if self.test.rate is None:
            images, labels = test.images(everything[:MOST_TESTS], world.device)
            images = images.contiguous(memory_format=torch.channels_last)
            measured["linearity"] = linearity(network, images, labels, self.test.class_count)
        return result, measured


class Matrix:
    """Results of cells, in a folder where each file is named by all that its victim depends on."""

    def __init__(self, task: Task, folder: Path) -> None:
        """Take what the folder holds; it need not be there."""
        self._task, self._kept = task, Kept(folder)
        self._clean, self._store = digests(task.store, task.data.ids, task.test)

    def train(
        self, cells: Sequence[MatrixCell], world: World, report: Callable[[str, int, int], None]
    ) -> dict[MatrixCell, Found]:
        """Train what is not there yet, each rank whole victims, and return everything.

        Raises:
            StoreError: a file is damaged, or cannot be written.
        """
        test = Published(self._task.test, resident=self._task.data.resident)

        def train(cell: MatrixCell, number: int, count: int) -> Found:
            def progress(done: int, total: int) -> None:
                report(f"{cell.recipe}, {cell.set}, seed {cell.seed}", number * total + done, count * total)

            victim, measured = self._task.train(cell, test, world.alone(), progress)
            facts = {"last": victim.last.test, "best": victim.best.test, "best_epoch": victim.best.epoch}
            return to_tree(cell) | facts | dataclasses.asdict(victim) | measured

        found = self._kept.complete({cell.same_as: self._name(cell.same_as) for cell in cells}, world, train)
        return {cell: found[cell.same_as] for cell in cells}

    def _name(self, cell: MatrixCell) -> str:
        basis: object = "" if cell.set in ("clean", "part") else self._store
        if cell.set == "noise":
            basis = noise_basis(self._task.store) or basis
        config = with_recipe(self._task.victim, cell.recipe)
        return digest(to_tree(cell), to_tree(config), checkpoints(config), self._clean, basis)
