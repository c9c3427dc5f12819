"""Training of a victim, whichever way it learns."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

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
    """What a victim reaches; see `train_network` and `train_contrastive`."""
    if feature_step(config.countermeasures):
        return train_contrastive(config, train, test, world, seed, report)
    return train_network(config, train, test, world, seed, report)[1]


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
