"""What the victims of an evaluation will take: each recipe is trained for a moment, and the rest is counted."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from hpcule.data.source import Source
from hpcule.evaluation.matrix import MatrixCell, Task
from hpcule.victim.config import VictimConfig
from hpcule.victim.job import VictimJob
from hpcule.victim.published import Published
from hpcule.victim.recipe import Recipe
from hpcule.victim.training import of_length, work
from hpcule.victim.training_data import TrainingData
from hpcule.world.group import World

LENGTH, TESTS = 2, 100
"""Steps, or epochs of learning features, and test samples of a short training."""
LONG = 2.0
"""Seconds from which on a first training stands for itself: what else it takes to begin hardly counts there."""
FORWARD = 1 / 3
"""What testing a sample takes, as a share of training on it: a backward pass takes twice as long as a forward pass."""


def expected_seconds(task: Task, cells: Sequence[MatrixCell], world: World) -> float:
    """About how long these cells take, of which each rank trains its share; the same on all ranks, which all call it.

    What fitting a step takes, such as D-VAE, is not part of it.

    Raises:
        UsageError, DataError: a recipe cannot be trained on these samples.
    """
    recipes = dict.fromkeys(cell.recipe for cell in cells)
    each = victim_seconds(task.victim, recipes, task.data, task.test, world)
    mine = cells[world.rank :: world.size]
    return max(world.gather(sum(each[cell.recipe] for cell in mine)))


def victim_seconds(
    victim: VictimConfig, recipes: Iterable[Recipe], data: TrainingData, test: Source, world: World
) -> dict[Recipe, float]:
    """About how long a victim of each recipe takes on this rank, without what is fitted before it trains.

    Raises:
        UsageError, DataError: a recipe cannot be trained on these samples.
    """
    found = {}
    for recipe in recipes:
        size = extent(recipe.applied(victim), len(data.ids), len(test))
        found[recipe] = size * _seconds_a_sample(recipe.whole.applied(victim), data, test, world.alone())
    return found


def extent(config: VictimConfig, samples: int, tests: int) -> float:
    """The work of a victim: the number of samples that it could train on in the same time, without any test."""
    trained, tested = work(config, samples, tests)
    return trained + FORWARD * tested


def _seconds_a_sample(victim: VictimConfig, data: TrainingData, test: Source, world: World) -> float:
    config, ids = of_length(victim, LENGTH), data.ids
    if not config.countermeasures.at("few"):  # which need their labels of every class
        ids = ids[:: max(1, len(ids) // (LENGTH * config.batch))]
    tests = np.arange(len(test), dtype=np.int64)[:TESTS]
    some, tested = dataclasses.replace(data, ids=ids), Published(test, ids=tests, resident=data.resident)
    seconds = 0.0
    for _ in range(2):
        seconds = VictimJob(config, "clean", 0).train(some, None, tested, world)[1].seconds
        if seconds > LONG:
            break
    return seconds / extent(config, len(ids), len(tests))
