"""What the victims of an evaluation will take: each recipe is trained for a moment, and the rest is counted."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from hpcule.evaluation.matrix import MatrixCell, Task
from hpcule.victim.config import VictimConfig
from hpcule.victim.job import VictimJob
from hpcule.victim.published import Published
from hpcule.victim.recipe import Recipe
from hpcule.victim.training import of_length, work
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
    rates = {recipe: _seconds_a_sample(task, recipe, world.alone()) for recipe in recipes}
    sizes = {recipe: extent(recipe.applied(task.victim), len(task.data.ids), len(task.test)) for recipe in recipes}
    mine = cells[world.rank :: world.size]
    return max(world.gather(sum(rates[cell.recipe] * sizes[cell.recipe] for cell in mine)))


def extent(config: VictimConfig, samples: int, tests: int) -> float:
    """The work of a victim: the number of samples that it could train on in the same time, without any test."""
    trained, tested = work(config, samples, tests)
    return trained + FORWARD * tested


def _seconds_a_sample(task: Task, recipe: Recipe, world: World) -> float:
    config = of_length(recipe.whole.applied(task.victim), LENGTH)
    ids = task.data.ids
    if not config.countermeasures.at("few"):  # which need their labels of every class
        ids = ids[:: max(1, len(ids) // (LENGTH * config.batch))]
    data = dataclasses.replace(task.data, ids=ids)
    tests = np.arange(len(task.test), dtype=np.int64)[:TESTS]
    test = Published(task.test, ids=tests, resident=task.data.resident)
    seconds = 0.0
    for _ in range(2):
        seconds = VictimJob(config, "clean", 0).train(data, None, test, world)[1].seconds
        if seconds > LONG:
            break
    return seconds / extent(config, len(ids), len(tests))
