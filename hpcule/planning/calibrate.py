"""Seconds for the cost model's units, measured by short real crafts on this machine."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, TypedDict

import numpy as np
import torch
from scipy.optimize import nnls

from hpcule.config.run import WorldConfig
from hpcule.config.tree import Tree, build_config, to_tree
from hpcule.config.version import __version__
from hpcule.craft.config import CraftConfig
from hpcule.craft.table import find
from hpcule.craft.work import Extent, Phase, Work
from hpcule.data.source import Source
from hpcule.planning.trial import MarkDocument, ShortCraftDocument, grown_bytes, start_calibration, store_bytes


@dataclass(frozen=True, kw_only=True)
class Rate:
    """What the units of one stage take, in seconds."""

    stage: str
    pass_seconds: float
    call_seconds: float
    sum_seconds: float
    """A sum over the ranks of this machine, with the wait for the last of them."""
    start_seconds: float
    """What the first step takes beyond that whenever the stage starts again."""
    once_seconds: float
    """What the very first step takes beyond that: imports, memory, choice of algorithms."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Where and how something was measured."""

    hpcule: str
    settings: Tree
    """Settings of the measured runs and of the samples; a plan for others needs another calibration."""
    workers: int
    cores: int
    start_seconds: float
    """Seconds from the command to the first barrier: interpreter, imports, processes, opening the source."""
    measured_seconds: float
    """The calibration's own wall time."""
    load: float
    """The machine's load average before: above 0 it was busy with something else, and the plan is a slow one."""


@dataclass(frozen=True, kw_only=True)
class Calibration(Measured):
    """What a craft takes on one machine with a number of workers."""

    threads: int
    """Number of threads of a worker."""
    device: str
    prepare_seconds: float
    """What a run takes besides its sections, such as building networks."""
    wait_share: float
    """Ranks with equal work wait for each other after a step: so much of their crafting time."""
    step_seconds: float
    """Additional seconds for each step."""
    read_sample_seconds: float
    read_shard_seconds: float
    write_byte_seconds: float
    write_shard_seconds: float
    finish_shard_seconds: float
    base_bytes: float
    """Memory of a worker without its samples and what else grows with them."""
    rates: tuple[Rate, ...]


class UnitCosts(TypedDict):
    """What short runs show of a craft's units; see `Calibration`."""

    prepare_seconds: float
    wait_share: float
    step_seconds: float
    read_sample_seconds: float
    read_shard_seconds: float
    write_byte_seconds: float
    write_shard_seconds: float
    finish_shard_seconds: float
    base_bytes: float
    rates: tuple[Rate, ...]


class Observation(NamedTuple):
    """Some steps of a stage: units that the model counts, and seconds that the journal reports."""

    passes: float
    calls: float
    seconds: float


def local_workers(config: WorldConfig, wanted: int) -> int:
    """How many of the workers of a node this machine can run at the same time: at most one a core, or a GPU."""
    gpus = torch.cuda.device_count() if torch.cuda.is_available() and config.device != "cpu" else 0
    return min(wanted, gpus or len(os.sched_getaffinity(0)))


def run_settings(config: CraftConfig, source: Source) -> Tree:
    """What a calibration depends on, as plain values; sizes of batch, data and machine are the model's."""
    short = to_tree(find(config.method.name).trial(config.method, 1, 2))
    short.pop("batch", None)
    world = {name: to_tree(config.world)[name] for name in ("device", "threads")}
    run = {"deterministic": config.deterministic, "precision": config.precision}
    facts = {"shape": list(source.shape), "levels": source.levels, "classes": source.class_count}
    return {"method": short, **run, **world, "compression": config.store.compression, **facts}


def calibrate(config: CraftConfig, source: Source, samples: int, workers: int, folder: Path) -> Calibration:
    """Measure, on `workers` workers, what a craft of `samples` samples like the source's will be made of."""
    load = os.getloadavg()[0]
    results, wall = start_calibration(config, samples, folder, workers)
    return Calibration(
        hpcule=__version__,
        settings=run_settings(config, source),
        cores=len(os.sched_getaffinity(0)),
        workers=workers,
        threads=results["threads"],
        device=results["device"],
        start_seconds=wall - sum(run["run_seconds"] for run in results["runs"]),
        measured_seconds=wall,
        load=load,
        **calibration_of(config, results["runs"]),
    )


def calibration_of(config: CraftConfig, runs: Sequence[ShortCraftDocument]) -> UnitCosts:
    """The seconds of each unit, from summaries and journals of short runs of `config`."""
    works, extents, first = [_work(run) for run in runs], [_extent(run) for run in runs], runs[0]
    read, write = [], []
    for run, work, extent in zip(runs, works, extents, strict=True):
        size = store_bytes(config, extent, work.shared) * extent.own_shards / extent.shards
        read.append(Observation(extent.own_samples, extent.own_shards, run["read_seconds"]))
        write.append(Observation(size, extent.own_shards, run["write_seconds"]))
    read_sample, read_shard = fit_seconds(read)
    write_byte, write_shard = fit_seconds(write)
    largest = max(range(len(runs)), key=lambda number: extents[number].samples)
    peak = max(run["peak_memory_mebibytes"] for run in runs) * 2**20
    waited = [Observation(run["craft_seconds"], len(run["marks"]), _waited_between_steps(run)) for run in runs]
    wait_share, step = fit_seconds(waited)
    sections = first["read_seconds"] + first["craft_seconds"] + first["write_seconds"] + first["finish_seconds"]
    return {
        "prepare_seconds": max(0.0, first["run_seconds"] - sections - waited[0].seconds),
        "wait_share": wait_share,
        "step_seconds": step,
        "read_sample_seconds": read_sample,
        "read_shard_seconds": read_shard,
        "write_byte_seconds": write_byte,
        "write_shard_seconds": write_shard,
        "finish_shard_seconds": runs[largest]["finish_seconds"] / extents[largest].shards,
        "base_bytes": max(0.0, peak - grown_bytes(config, extents[largest], works[largest])),
        "rates": tuple(_rate(number, works, runs) for number in range(len(works[0].phases))),
    }


def fit_seconds(observations: Sequence[Observation]) -> tuple[float, float]:
    """Seconds a pass and a call, neither below 0, by least squares of relative errors; longer ones weigh more."""
    timed = [row for row in observations if row.seconds > 0]
    if not timed:
        return 0.0, 0.0
    weights = np.array([1 / np.sqrt(row.seconds) for row in timed])
    units = np.array([[row.passes, row.calls] for row in timed])
    scale = np.maximum(units.max(0), 1e-12)
    found, _ = nnls(units / scale * weights[:, None], np.array([row.seconds for row in timed]) * weights)
    passes, calls = found / scale
    return float(passes), float(calls)


def _rate(number: int, works: Sequence[Work], runs: Sequence[ShortCraftDocument]) -> Rate:
    """The rate of a phase from all runs: from the steps that begin nothing; then from those that do, what is left."""
    phases = [work.phases[number] for work in works]
    steps = [_steps(run["marks"], phases[0].stage) for run in runs]
    pairs = list(zip(phases, steps, strict=True))
    plain = [[step for step, begins in zip(found, _begins(phase), strict=True) if not begins] for phase, found in pairs]
    later = [rest or found[1:] or found for rest, found in zip(plain, steps, strict=True)]
    passes, calls = fit_seconds([_observation(phase, found) for phase, found in zip(phases, later, strict=True)])

    def beyond(phase: Phase, step: _StepTime) -> float:
        units = _observation(phase, [step])
        return units.seconds - passes * units.passes - calls * units.calls

    again = [
        beyond(phase, step)
        for phase, found in pairs
        for step, begins in zip(found[1:], _begins(phase)[1:], strict=True)
        if begins
    ]
    start = max(0.0, sum(again) / len(again)) if again else 0.0
    sums = sum(step.sums for found in later for step in found)
    return Rate(
        stage=phases[0].stage,
        pass_seconds=passes,
        call_seconds=calls,
        sum_seconds=sum(step.waited for found in later for step in found) / sums if sums else 0.0,
        start_seconds=start,
        once_seconds=max(0.0, beyond(phases[0], steps[0][0]) - start),
    )


def _begins(phase: Phase) -> list[bool]:
    """Whether each step of a stage starts it again."""
    length = phase.marks // phase.starts
    return [number % length == 0 for number in range(phase.marks)]


def _waited_between_steps(run: ShortCraftDocument) -> float:
    """Collectives outside the method, on the rank that spent the least in them."""
    return max(0.0, run["communication_seconds"] - run["marks"][-1]["collective_seconds"])


def _observation(phase: Phase, steps: Sequence[_StepTime]) -> Observation:
    share = len(steps) / phase.marks
    return Observation(phase.passes * share, phase.calls * share, sum(step.compute for step in steps))


class _StepTime(NamedTuple):
    compute: float
    waited: float
    sums: int


def _steps(marks: Sequence[MarkDocument], stage: str) -> list[_StepTime]:
    """What each step of a stage took: the journal reports what all of them have taken so far."""
    start: MarkDocument = {"stage": "", "craft_seconds": 0.0, "collectives": 0, "collective_seconds": 0.0}
    return [_between(before, mark) for before, mark in pairwise([start, *marks]) if mark["stage"] == stage]


def _between(before: MarkDocument, mark: MarkDocument) -> _StepTime:
    waited = mark["collective_seconds"] - before["collective_seconds"]
    craft = mark["craft_seconds"] - before["craft_seconds"]
    return _StepTime(craft - waited, waited, mark["collectives"] - before["collectives"])


def _extent(run: ShortCraftDocument) -> Extent:
    return build_config(Extent, run["extent"])


def _work(run: ShortCraftDocument) -> Work:
    settings = run["settings"]
    method = find(settings["name"])
    work = method.work(build_config(method.config_class, settings), _extent(run))
    assert work is not None
    return work
