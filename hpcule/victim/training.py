"""Training of a victim, whichever way it learns."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

from torch import nn

from hpcule.config.errors import UsageError
from hpcule.victim.config import VictimConfig
from hpcule.victim.countermeasures.by_task import require_for_samples, require_for_task
from hpcule.victim.countermeasures.fitted import fitted_steps
from hpcule.victim.countermeasures.table import COUNTERMEASURES, Applied, Countermeasures
from hpcule.victim.feature_learning import look_epochs, train_contrastive
from hpcule.victim.keeper import Keeper
from hpcule.victim.linear_layer import refit, train_probe
from hpcule.victim.published import Published
from hpcule.victim.reading import ReadingSteps
from hpcule.victim.result import VictimResult
from hpcule.victim.supervised import train_network
from hpcule.victim.training_schedule import TrainingSchedule, enough_epochs
from hpcule.world.group import World

LONGER = 4
"""How many times as many steps a victim takes that is trained again because its clean control has not learnt."""


class TrainedVictim(NamedTuple):
    """What training a victim gives.

    Attributes:
        network: in evaluation mode; None where features come before classes.
        result: what it reaches.
        test: the test samples, as the attacker reads them.
    """

    network: nn.Module | None
    result: VictimResult
    test: Published


def train_victim(
    config: VictimConfig,
    train: Published,
    test: Published,
    world: World,
    seed: int,
    report: Callable[[int, int], None] = lambda done, total: None,
    owned: Published | None = None,
    after_epoch: Callable[[int, nn.Module], None] = lambda epoch, network: None,
    keeper: Keeper | None = None,
) -> TrainedVictim:
    """A victim that is trained by its recipe; see `train_network`.

    Args:
        config: the recipe.
        train: what was published.
        test: clean samples of the same task, which a recipe may read as it reads the others; see `ReadingSteps`.
        world: the ranks that train this one victim together.
        seed: of initial weights, order and augmentation.
        report: called with epochs done and in all.
        owned: clean samples that the attacker has, for recipes whose last layer is fitted to them, and for no others.
        after_epoch: called with the number of epochs done and the network, where a network is trained as a whole.
        keeper: keeps the training's state, from which it goes on where it was; None: nothing is kept.

    Raises:
        UsageError: there are none for such a recipe, or it is for images and these are recordings, or for another task.
        StoppedError: a signal has asked to stop; the state is saved.
    """
    steps = config.countermeasures
    require_for_task(steps, train.task.name)
    require_for_samples(steps, train.source)
    if steps.refit and owned is None:
        raise UsageError(f"{steps.refit} needs clean samples, and none are withheld here")
    reading = ReadingSteps(train, config, seed, world, keeper)
    train, test = reading.train, reading.for_test(test)
    if learner := steps.features:
        if learner.name != "linear-probe":
            return TrainedVictim(None, train_contrastive(config, train, test, world, seed, report, keeper), test)
        result = train_probe(config, train, test, world, seed, keeper)
        report(1, 1)
        return TrainedVictim(None, result, test)
    network, result = train_network(config, train, test, world, seed, report, after_epoch, keeper)
    if owned is not None:
        result = refit(network, result, config, reading.for_test(owned), test, world)
    return TrainedVictim(network, result, test)


def work(config: VictimConfig, samples: int, tests: int) -> tuple[int, int]:
    """How many samples a victim trains on and tests in all, of training and test sets of these sizes."""
    if learner := config.countermeasures.features:
        if learner.strength is None:
            return 0, samples + tests
        epochs = int(learner.strength)
        return epochs * samples, len(look_epochs(epochs)) * (samples + tests)
    schedule = TrainingSchedule.of(config, samples)
    looks = schedule.epochs + (schedule.total // config.evaluate_every if config.evaluate_every else 0)
    epochs, rest = divmod(schedule.total, schedule.steps_an_epoch)
    return epochs * samples + rest * schedule.batch, looks * tests


def of_length(config: VictimConfig, length: int) -> VictimConfig:
    """The recipe with `length` steps, or epochs of learning features, without a target and steps that are fitted."""
    steps = config.countermeasures.without("after", "mixture", "test")
    steps = Countermeasures(tuple(step for step in steps.steps if step not in fitted_steps(steps)))
    if steps.features:
        steps = _learning_for(steps, steps.features, length)
    return dataclasses.replace(
        config, steps=length, warmup_epochs=0.0, target=None, evaluate_every=None, countermeasures=steps
    )


def longer(config: VictimConfig, samples: int) -> VictimConfig:
    """The recipe with `LONGER` times as many steps, or epochs of learning features; unchanged where it has neither.

    Args:
        config: the recipe.
        samples: in the training set.
    """
    steps = config.countermeasures
    if learner := steps.features:
        epochs = LONGER * (learner.strength or 0)
        return dataclasses.replace(config, countermeasures=_learning_for(steps, learner, epochs))
    if config.steps is not None:
        return dataclasses.replace(config, steps=LONGER * config.steps)
    return dataclasses.replace(config, epochs=LONGER * (config.epochs or enough_epochs(samples)))


def _learning_for(steps: Countermeasures, learner: Applied, epochs: float) -> Countermeasures:
    """The steps with another number of epochs of learning features, as far as it is allowed; a probe has none."""
    if learner.strength is None:
        return steps
    changed = dataclasses.replace(learner, strength=min(float(epochs), COUNTERMEASURES[learner.name].highest))
    return Countermeasures(tuple(changed if step == learner else step for step in steps.steps))
