"""What the victims of an evaluation will take: each recipe is trained for a moment, and the rest is counted.

While victims are trained, what those that are done took corrects this.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from hpcule.data.source import Source
from hpcule.tasks.table import task_of
from hpcule.victim.config import VictimConfig
from hpcule.victim.countermeasures.fitted import fitted_steps
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


class Outlook:
    """The victims of a rank, in the order in which it trains them: how many are done, and what the others take.

    A recipe takes what its victims took on average. One that none was trained by yet takes what was expected of it,
    multiplied by what the others took compared with what was expected of them; those with fitted steps do not count
    there, because what is expected does not include fitting.
    """

    def __init__(self, expected: Mapping[Recipe, float], recipes: Sequence[Recipe]) -> None:
        """Begin.

        Args:
            expected: seconds that a victim of each recipe takes, without what is fitted; see `victim_seconds`.
            recipes: the recipe of each victim.
        """
        self._expected, self._recipes = expected, recipes
        self._took = defaultdict[Recipe, list[float]](list)
        self.done = 0

    @property
    def total(self) -> int:
        """Number of victims, done or not."""
        return len(self._recipes)

    def note(self, seconds: float) -> None:
        """Take down that the next victim is done, and what it took."""
        self._took[self._recipes[self.done]].append(seconds)
        self.done += 1

    def seconds_left(self, share: float = 0) -> float:
        """Estimated seconds of the victims that are not done; of the first of them, this share in [0, 1] is."""
        left = [self._each(recipe) for recipe in self._recipes[self.done :]]
        return sum(left) - share * left[0] if left else 0.0

    def _each(self, recipe: Recipe) -> float:
        if took := self._took.get(recipe):
            return sum(took) / len(took)
        counted = {recipe: took for recipe, took in self._took.items() if not fitted_steps(recipe.countermeasures)}
        expected = sum(self._expected[recipe] * len(took) for recipe, took in counted.items())
        ratio = sum(map(sum, counted.values())) / expected if expected else 1.0
        return ratio * self._expected[recipe]


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
    some, task = dataclasses.replace(data, ids=ids), task_of(config.task, test)
    tested = Published(test, ids=tests, resident=data.resident, task=task)
    seconds = 0.0
    for _ in range(2):
        seconds = VictimJob(config, "clean", 0).train(some, None, tested, world)[1].seconds
        if seconds > LONG:
            break
    return seconds / extent(config, len(ids), len(tests))
