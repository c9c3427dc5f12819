"""Plans for methods that count no work: real crafts of a few samples, timed, and extrapolated to the planned run.

A trial has the settings of the planned run, its batch and surrogate among them, and runs for a minute at most:

    seconds of a trial = sum over its stages of   seconds so far x steps in all / steps so far
    seconds of the run = (fixed + samples x seconds a sample) x workers of the trial / workers of the run

Two finished trials of different size separate what is fixed from what grows with the samples. A trial that was not
finished gives a lower bound: whether another stage would have followed is not known.
"""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from hpcule.config.tree import Tree, to_tree
from hpcule.config.version import __version__
from hpcule.craft.config import CraftConfig
from hpcule.craft.journal import LineDocument
from hpcule.craft.work import Extent
from hpcule.data.source import Source
from hpcule.planning.calibrate import Measured
from hpcule.planning.machine import Machine, limits
from hpcule.planning.predict import Prediction, Stage
from hpcule.planning.trial import label_bytes, planned_cut, resident_bytes, start_craft, store_bytes

TRIAL_SECONDS = 60.0
"""Longest crafting time of a trial; then it is killed."""
FEWEST = 64
"""Samples of the first trial, at least."""


@dataclass(frozen=True, kw_only=True)
class TimedStage:
    """One stage of a whole run of the trial's samples, extrapolated if the run was not finished."""

    stage: str
    seconds: float
    collective_seconds: float
    """Seconds in collectives, part of `seconds`."""


@dataclass(frozen=True, kw_only=True)
class TimedRun:
    """One trial's settings, samples and times."""

    samples: int
    complete: bool
    """False if it was not finished; its seconds are a lower bound."""
    stages: tuple[TimedStage, ...]
    storage_seconds: float
    peak_bytes: float

    @property
    def craft_seconds(self) -> float:
        """Seconds of all stages."""
        return sum(stage.seconds for stage in self.stages)


@dataclass(frozen=True, kw_only=True)
class Timing(Measured):
    """The trials of one craft on this machine, the largest last."""

    threads: int
    device: str
    runs: tuple[TimedRun, ...]

    @property
    def complete(self) -> bool:
        """Whether the largest trial was finished."""
        return self.runs[-1].complete

    def craft_seconds(self, samples: int) -> float:
        """Crafting time of `samples` samples by the workers of the trials."""
        first, last = self.runs[0], self.runs[-1]
        if first.complete and last.complete and last.samples > first.samples:
            slope = (last.craft_seconds - first.craft_seconds) / (last.samples - first.samples)
            fixed = first.craft_seconds - slope * first.samples
            if slope > 0 and fixed > 0:
                return fixed + slope * samples
        return last.craft_seconds * samples / last.samples


def timing_settings(config: CraftConfig, source: Source) -> Tree:
    """What a timing depends on, as plain values: all settings of the method, unlike those of a calibration."""
    world = {name: to_tree(config.world)[name] for name in ("device", "threads")}
    run = {"deterministic": config.deterministic, "precision": config.precision}
    facts = {"shape": list(source.shape), "levels": source.levels, "classes": source.class_count}
    return {"method": to_tree(config.method), **run, **world, "compression": config.store.compression, **facts}


def time_craft(config: CraftConfig, source: Source, workers: int, folder: Path) -> Timing:
    """Time real crafts of some of the source's samples on `workers` workers of this machine.

    The first has the fewest samples that fill a batch; if it is finished in time, a second has as many as time allows.
    """
    load, begin = os.getloadavg()[0], time.perf_counter()
    batch: int = getattr(config.method, "batch", 1)
    few = min(len(source), max(FEWEST, batch, 2 * workers))
    results = [_timed(config, source, few, workers, folder / "0")]
    runs = [results[0].run]
    more = min(len(source), int(few * TRIAL_SECONDS / 2 / max(runs[0].craft_seconds, 1e-3)))
    if runs[0].complete and more >= 2 * few:
        results.append(_timed(config, source, more, workers, folder / "1"))
        runs.append(results[1].run)
    return Timing(
        hpcule=__version__,
        settings=timing_settings(config, source),
        workers=workers,
        cores=len(os.sched_getaffinity(0)),
        start_seconds=results[0].start_seconds,
        measured_seconds=time.perf_counter() - begin,
        load=load,
        threads=results[0].threads,
        device=results[0].device,
        runs=tuple(runs),
    )


def extrapolate(config: CraftConfig, extent: Extent, shared: int, machine: Machine, timing: Timing) -> Prediction:
    """What a craft of that extent takes on a machine whose nodes are like the one that was measured.

    Args:
        config: the settings of the run.
        extent: its size, with the machine's number of workers.
        shared: deltas that samples share; 0 where each has its own.
        machine: where it runs.
        timing: the trials.
    """
    last, busy = timing.runs[-1], min(machine.workers, extent.shards)
    craft = timing.craft_seconds(extent.samples) * timing.workers / busy
    scale = craft / last.craft_seconds if last.craft_seconds else 0.0
    storage = last.storage_seconds * extent.own_samples / (last.samples / timing.workers)
    store = store_bytes(config, extent, shared)
    wall = timing.start_seconds + craft + storage
    own = store * extent.own_shards / extent.shards
    return Prediction(
        machine=machine.name,
        nodes=machine.nodes,
        workers=machine.workers,
        samples=extent.samples,
        shards=extent.shards,
        lower_bound=not timing.complete,
        wall_seconds=wall,
        craft_seconds=craft,
        start_seconds=timing.start_seconds,
        storage_seconds=storage,
        agree_seconds=0.0,
        node_hours=wall * machine.nodes / 3600,
        worker_hours=wall * machine.workers / 3600,
        memory_bytes=last.peak_bytes + resident_bytes(config, extent) + label_bytes(extent) + own,
        store_bytes=store,
        checkpoint_bytes=store,
        traffic_bytes=None,
        stages=tuple(
            Stage(
                stage=stage.stage,
                compute_seconds=scale * (stage.seconds - stage.collective_seconds),
                communication_seconds=scale * stage.collective_seconds,
                busy=busy,
            )
            for stage in last.stages
        ),
        limits=(*limits(config, extent, machine, timing, (), wall), *_notes(timing, machine)),
    )


def stages_of(lines: Sequence[LineDocument], *, complete: bool) -> Iterator[TimedStage]:
    """Seconds of the stages of a whole run, from the lines of a journal.

    A stage that begins again belongs to a loop: its time is counted to the loop's own stage, whose steps go on.
    """
    furthest: dict[str, int] = {}
    again = set()
    for line in lines:
        if line["done"] <= furthest.get(line["stage"], 0):
            again.add(line["stage"])
        furthest[line["stage"]] = max(line["done"], furthest.get(line["stage"], 0))
    if again >= furthest.keys():
        again = set()
    spent: dict[str, list[float]] = {}
    before = (0.0, 0.0)
    last: dict[str, LineDocument] = {}
    for line in lines:
        if line["stage"] in again:
            continue
        now = (line["craft_seconds"], line["collective_seconds"])
        sums = spent.setdefault(line["stage"], [0.0, 0.0])
        sums[0], sums[1], before = sums[0] + now[0] - before[0], sums[1] + now[1] - before[1], now
        last[line["stage"]] = line
    for stage, (seconds, collective) in spent.items():
        whole = 1.0 if complete else last[stage]["total"] / last[stage]["done"]
        yield TimedStage(stage=stage, seconds=seconds * whole, collective_seconds=collective * whole)


class _Result(NamedTuple):
    run: TimedRun
    start_seconds: float
    threads: int
    device: str


def _timed(config: CraftConfig, source: Source, samples: int, workers: int, folder: Path) -> _Result:
    """Craft `samples` samples; a run that is not finished in time is killed, and its journal says how far it came."""
    store = dataclasses.replace(config.store, shards=planned_cut(config, source, samples, workers).count)
    cut = dataclasses.replace(config, store=store)
    try:
        results, wall = start_craft(cut, samples, folder, workers, _Limit(_journal(folder)))
    except TimeoutError:
        stages = tuple(stages_of(_lines(folder), complete=False))
        stages = stages or (TimedStage(stage="first step", seconds=TRIAL_SECONDS, collective_seconds=0.0),)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
        run = TimedRun(samples=samples, complete=False, stages=stages, storage_seconds=0.0, peak_bytes=peak)
        return _Result(run, 0.0, config.world.threads or 1, config.world.device)
    (summary,) = results["runs"]
    run = TimedRun(
        samples=samples,
        complete=True,
        stages=tuple(stages_of(_lines(folder), complete=True)),
        storage_seconds=summary["storage_seconds"],
        peak_bytes=summary["peak_memory_mebibytes"] * 2**20,
    )
    return _Result(run, wall - summary["run_seconds"], results["threads"], results["device"])


class _Limit:
    """Expires TRIAL_SECONDS after a journal was begun: starting the processes does not count."""

    def __init__(self, journal: Path) -> None:
        self._journal = journal
        self._begin: float | None = None

    def __call__(self) -> bool:
        if self._begin is None and self._journal.exists():
            self._begin = time.monotonic()
        return self._begin is not None and time.monotonic() - self._begin >= TRIAL_SECONDS


def _journal(folder: Path) -> Path:
    return folder / "store" / "run" / "log-00000.jsonl"


def _lines(folder: Path) -> list[LineDocument]:
    """The lines of rank 0's journal; none where the run was killed before it had one."""
    path = _journal(folder)
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return [json.loads(line) for line in lines]


def _notes(timing: Timing, machine: Machine) -> Iterator[str]:
    """What an extrapolation rests on, and what it cannot know."""
    sizes = " and ".join(f"{run.samples:,}" for run in timing.runs)
    yield f"extrapolated from crafts of {sizes} samples by {timing.workers} worker(s): the method counts no work"
    if not timing.complete:
        yield f"at least: the trial was not finished after {TRIAL_SECONDS:.0f} s, and later stages are not known"
    if machine.workers > timing.workers:
        yield "the work is taken to divide evenly among the workers; what they send each other is not known"
