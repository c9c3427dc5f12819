"""What training a victim takes: short real trainings, one on each worker, side by side as in a study."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict, cast

import numpy as np

from hpcule.config.run import WorldConfig
from hpcule.config.tree import Tree, build_config, to_tree
from hpcule.config.version import __version__
from hpcule.data.opening import Opening
from hpcule.data.source import Source
from hpcule.data.subset import Subset
from hpcule.planning.calibrate import Measured, Observation, fit_seconds
from hpcule.planning.trial import launch
from hpcule.store.files import to_json, write_atomically
from hpcule.victim.config import VictimConfig
from hpcule.victim.job import VictimJob
from hpcule.victim.published import Published
from hpcule.victim.training import of_length, work
from hpcule.victim.training_data import TrainingData
from hpcule.world.group import World

BATCHES, FEW, MANY = 4, 250, 2000
"""Batches that are trained on, and the sizes of the test sets."""
LENGTH = ("epochs", "steps", "learning_rate", "warmup_epochs", "momentum", "weight_decay", "target", "evaluate_every")
"""Settings that what a step takes does not depend on."""


@dataclass(frozen=True, kw_only=True)
class VictimTrial:
    """A recipe, and what it is trained on."""

    victim: VictimConfig
    data: str
    test: str | None
    opening: Opening
    world: WorldConfig


class VictimTrialDocument(TypedDict):
    """results.json of a victim's trial: samples trained on, samples tested, and seconds of each training, mean over the
    ranks; and seconds of all trainings."""

    observed: list[tuple[float, float, float]]
    trained_seconds: float


@dataclass(frozen=True, kw_only=True)
class VictimCalibration(Measured):
    """What one victim takes next to others on the same machine."""

    train_sample_seconds: float
    test_sample_seconds: float

    def seconds(self, config: VictimConfig, samples: int, tests: int) -> float:
        """Seconds of training on `samples` samples, and of testing on `tests` after every epoch."""
        trained, tested = work(config, samples, tests)
        return trained * self.train_sample_seconds + tested * self.test_sample_seconds


def victim_settings(trial: VictimTrial, source: Source) -> Tree:
    """What the calibration depends on."""
    victim = trial.victim.without("mixture")
    recipe = {name: value for name, value in to_tree(victim).items() if name not in LENGTH}
    world = {name: to_tree(trial.world)[name] for name in ("device", "threads")}
    return {"victim": recipe, **world, "shape": list(source.shape), "classes": source.class_count}


def calibrate_victim(trial: VictimTrial, source: Source, workers: int, folder: Path) -> VictimCalibration:
    """Measure with a victim on each of `workers` workers."""
    load = os.getloadavg()[0]
    found, wall = launch({"kind": "victim", **to_tree(trial)}, folder, workers, "a trial of a victim")
    results = cast(VictimTrialDocument, found)
    train, test = fit_seconds([Observation(*row) for row in results["observed"]])
    return VictimCalibration(
        hpcule=__version__,
        settings=victim_settings(trial, source),
        cores=len(os.sched_getaffinity(0)),
        workers=workers,
        start_seconds=wall - results["trained_seconds"],
        train_sample_seconds=train,
        test_sample_seconds=test,
        measured_seconds=wall,
        load=load,
    )


def victim_from_tree(tree: Tree) -> VictimTrial:
    """What `calibrate_victim` wrote."""
    return build_config(VictimTrial, {name: value for name, value in tree.items() if name != "kind"})


def perform_victim(trial: VictimTrial, folder: Path, world: World) -> None:
    """Train three times on every rank: once to warm up, once mostly training, once mostly testing."""
    source = trial.opening.source(trial.data)
    test = trial.opening.test(trial.data, trial.test)
    resident = trial.world.resident_mebibytes * 2**20
    data = TrainingData.of(Subset(source, min(len(source), BATCHES * trial.victim.batch)), None, resident)
    sets = {count: Published(Subset(test, min(len(test), count)), resident=resident) for count in (FEW, MANY)}
    observed: list[tuple[float, float, float]] = []
    spent = 0.0
    for steps, count in ((1, FEW), (2 * BATCHES, FEW), (1, MANY)):
        recipe = of_length(trial.victim, steps)
        world.barrier()
        result = VictimJob(recipe, "clean", seed=0).train(data, None, sets[count], world.alone()).result
        seconds = float(np.mean(world.gather(result.seconds)))
        observed.append((*work(recipe, len(data.ids), len(sets[count])), seconds))
        spent += seconds
    if world.leads:
        results: VictimTrialDocument = {"observed": observed[1:], "trained_seconds": spent}
        write_atomically(folder / "results.json", to_json(results))
