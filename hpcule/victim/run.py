"""Training of a victim, whichever way it learns."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from torch import nn

from hpcule.victim.config import VictimConfig
from hpcule.victim.contrastive import look_epochs, train_contrastive
from hpcule.victim.countermeasures import feature_step
from hpcule.victim.published import Published
from hpcule.victim.result import VictimResult
from hpcule.victim.schedule import Schedule
from hpcule.victim.train import train_network
from hpcule.world.group import World


def train_victim(
    config: VictimConfig,
    train: Published,
    test: Published,
    world: World,
    seed: int,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> VictimResult:
    """What a victim reaches; see `trained`."""
    return trained(config, train, test, world, seed, report)[1]


def trained(
    config: VictimConfig,
    train: Published,
    test: Published,
    world: World,
    seed: int,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[nn.Module | None, VictimResult]:
    """A victim's network, in evaluation mode, and what it reaches; see `train_network` and `train_contrastive`.

    There is no such network where features are learnt first.
    """
    if feature_step(config.countermeasures):
        return None, train_contrastive(config, train, test, world, seed, report)
    return train_network(config, train, test, world, seed, report)


def work(config: VictimConfig, samples: int, tests: int) -> tuple[float, int]:
    """How many samples a victim trains on and tests in all, of training and test sets of these sizes."""
    if learner := feature_step(config.countermeasures):
        epochs = int(learner.strength or 0)
        return float(epochs * samples), len(look_epochs(epochs)) * (samples + tests)
    schedule = Schedule.of(config, samples)
    looks = schedule.epochs + (schedule.total // config.evaluate_every if config.evaluate_every else 0)
    return schedule.total * samples / schedule.steps_an_epoch, looks * tests


def of_length(config: VictimConfig, length: int) -> VictimConfig:
    """The recipe with so many steps, or so many epochs of learning features, and with nothing to look for."""
    short = dataclasses.replace(config, steps=length, warmup_epochs=0.0, target=None, evaluate_every=None)
    learner = feature_step(config.countermeasures)
    if learner is None:
        return short
    others = tuple(text for text in config.countermeasures if feature_step([text]) is None)
    return dataclasses.replace(short, countermeasures=(*others, f"{learner.name}-{length}"))
