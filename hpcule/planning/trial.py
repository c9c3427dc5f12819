"""Runs that `hpcule plan` and `hpcule scale` measure, each in processes of its own: what they are and what they leave.

A trial's folder holds trial.json, which says what to do, and afterwards results.json and the stores that were made.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypedDict, cast

import torch

from hpcule.config.errors import UsageError, WorkerError
from hpcule.config.tree import Tree, to_tree
from hpcule.craft.config import CraftConfig
from hpcule.craft.journal import LineDocument
from hpcule.craft.run import CraftDocument, craft
from hpcule.craft.table import configure, find
from hpcule.craft.work import Extent, Walk, Work
from hpcule.data.partition import Partition, partition
from hpcule.data.source import Source, label_type
from hpcule.data.subset import Subset
from hpcule.store.files import private_directory, read_json, to_json, write_atomically
from hpcule.store.vault import Vault
from hpcule.world.group import World
from hpcule.world.launcher import detect
from hpcule.world.signals import StopFlag, environment_of_child

Kind = Literal["craft", "calibrate"]
ENOUGH_SECONDS = 5.0
"""A calibration whose first run took less crafts more samples, up to all, in a third one."""


@dataclasses.dataclass(frozen=True)
class Trial:
    """One trial: a craft as it stands, or the short ones that calibrate the cost model for it."""

    kind: Kind
    config: CraftConfig
    samples: int
    """Number of samples: of the source's, spread evenly (craft), or of the planned run (calibrate), maybe more."""


class TrialDocument(TypedDict):
    """A trial as trial.json holds it."""

    kind: Kind
    config: Tree
    samples: int


class MarkDocument(TypedDict):
    """What a calibration reads of a line of the journal."""

    stage: str
    craft_seconds: float
    collectives: int
    collective_seconds: float


class ShortCraftDocument(CraftDocument):
    """Summary of a calibration's craft, its method's settings, how large it was (an `Extent`), and rank 0's journal."""

    settings: Tree
    extent: Tree
    marks: list[MarkDocument]


class CraftTrialDocument(TypedDict):
    """results.json of a craft as it stands: the type of rank 0's device, its threads, and the summary of one run."""

    device: str
    threads: int
    runs: list[CraftDocument]


class CalibrationTrialDocument(TypedDict):
    """results.json of a calibration: the type of rank 0's device, its threads, and the short crafts."""

    device: str
    threads: int
    runs: list[ShortCraftDocument]


def start_craft(
    config: CraftConfig, samples: int, folder: Path, workers: int, expired: Callable[[], bool] | None = None
) -> tuple[CraftTrialDocument, float]:
    """Craft that number of the source's samples on `workers` local workers; returns and raises what `launch` does."""
    found, wall = _start(Trial("craft", config, samples), folder, workers, expired)
    return cast(CraftTrialDocument, found), wall


def start_calibration(
    config: CraftConfig, samples: int, folder: Path, workers: int
) -> tuple[CalibrationTrialDocument, float]:
    """Calibrate for a craft of that number of samples on `workers` local workers; returns and raises what `launch`
    does."""
    found, wall = _start(Trial("calibrate", config, samples), folder, workers, None)
    return cast(CalibrationTrialDocument, found), wall


def _start(trial: Trial, folder: Path, workers: int, expired: Callable[[], bool] | None) -> tuple[Tree, float]:
    document: TrialDocument = {"kind": trial.kind, "config": to_tree(trial.config), "samples": trial.samples}
    return launch(document, folder, workers, f"a trial of {trial.config.method.name}", expired)


def launch(
    document: Mapping[str, object], folder: Path, workers: int, what: str, expired: Callable[[], bool] | None = None
) -> tuple[Tree, float]:
    """Do what `document` says on `workers` local workers: results.json, and the seconds from start to end.

    Raises:
        WorkerError: `what` failed; with its own message.
        TimeoutError: `expired`, which is asked a few times a second, said so; all processes have been killed.
    """
    private_directory(folder)
    write_atomically(folder / "trial.json", to_json(document))
    command = [sys.executable, "-m", "hpcule", "trial", str(folder), "--workers", str(workers)]
    begin = time.perf_counter()
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors, env=environment_of_child())
        try:
            while not _ended(process, None if expired is None else 0.2):
                if expired is not None and expired():
                    raise TimeoutError(f"{what} on {workers} worker(s) was not finished in time")
        finally:
            # Workers of a parent that has gone end by themselves.
            process.kill()
            process.wait()
        wall = time.perf_counter() - begin
        errors.seek(0)
        lines = [line.rstrip("\n") for line in errors if line.startswith("hpcule: ")]
    if process.returncode:
        own = lines[-1].removeprefix("hpcule: ") if lines else f"exit code {process.returncode}"
        raise WorkerError(f"{what} on {workers} worker(s) failed: {own}")
    return read_json(folder / "results.json"), wall


def _ended(process: subprocess.Popen[bytes], seconds: float | None) -> bool:
    """Whether a process has ended, after waiting for it for so long at most; None: however long it takes."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def check_alone() -> None:
    """A measurement starts its own workers, so it must not itself be one of many.

    Raises:
        UsageError: a launcher has started several ranks.
    """
    place = detect()
    if place.size > 1:
        raise UsageError(f"{place.launcher} started {place.size} ranks: start this command once, by itself")


def from_tree(tree: Tree) -> Trial:
    """Read a `TrialDocument`."""
    document = cast(TrialDocument, tree)
    settings = {name: value for name, value in document["config"].items() if name != "data"}
    data = document["config"]["data"]
    config = configure(settings["method"]["name"], data, preset=None, file=settings, overrides=[])
    return Trial(document["kind"], config, document["samples"])


def perform(trial: Trial, folder: Path, world: World) -> None:
    """Do it, on all ranks together, and write results.json."""
    config = trial.config
    source = config.source(config.data)
    device, threads = world.device.type, torch.get_num_threads()
    results: CalibrationTrialDocument | CraftTrialDocument
    if trial.kind == "calibrate":
        results = {"device": device, "threads": threads, "runs": _calibrate(trial, source, folder, world)}
    else:
        summary = _craft(config, Subset(source, trial.samples), folder / "store", world)
        results = {"device": device, "threads": threads, "runs": [summary]}
    if world.leads:
        write_atomically(folder / "results.json", to_json(results))


def extent_of(config: CraftConfig, source: Source, cut: Partition, workers: int, device: str) -> Extent:
    """The extent of a craft."""
    return Extent(
        samples=cut.n,
        shards=cut.count,
        shape=source.shape,
        classes=source.class_count,
        levels=source.levels,
        workers=workers,
        exact=config.deterministic,
        device=device,
    )


def planned_cut(config: CraftConfig, source: Source, samples: int, workers: int) -> Partition:
    """The partition of `samples` samples like the source's; as many shards as workers where a run would refuse them."""
    channels, height, width = source.shape
    size = channels * height * width * source.dtype.itemsize
    cut = partition(samples, size, config.store.shards, 1)
    return cut if cut.count >= workers else Partition(samples, min(samples, workers))


def _calibrate(trial: Trial, source: Source, folder: Path, world: World) -> list[ShortCraftDocument]:
    """Two short runs that differ in the ghosts of a shard and of a batch, so that the cost of a sample can be separated
    from that of a step; then a longer one with the shards and the batch that are planned, if they took no time."""
    config, workers = trial.config, world.size
    method: Any = config.method
    cut = planned_cut(config, source, trial.samples, workers)
    walk = Walk.of(cut.n, cut.count, method.ghost, method.batch)
    ghost = max(1, round(walk.mean_ghost))
    runs: list[ShortCraftDocument] = []

    def run(ghosts: int, shards: int, ghosts_a_batch: int) -> None:
        size = max(1, min(ghosts * ghost, len(source) // shards))
        batch = min(shards * size, ghost * min(walk.ghosts_a_batch, ghosts_a_batch))
        short = dataclasses.replace(
            config,
            method=find(method.name).trial(method, batch, workers),
            store=dataclasses.replace(config.store, shards=shards),
        )
        runs.append(_observe(short, Subset(source, shards * size), folder / f"store-{len(runs)}", world))

    def most(ghosts: int) -> int:
        """Shards of that number of ghosts that there are samples for, a multiple of the workers."""
        return workers * max(1, len(source) // (ghosts * ghost) // workers)

    few = min(4 * workers, most(2))
    run(2, few, 4 * workers)
    run(1, few, workers)
    times = int(ENOUGH_SECONDS / max(1e-3, runs[0]["craft_seconds"]))
    if times > 1 and most(2) > few:
        planned = max(2, round(cut.n / cut.count / ghost))
        shards = min(max(workers, times * few * 2 // planned // workers * workers), most(planned))
        run(planned, shards, planned * shards)
    return runs


def _observe(config: CraftConfig, source: Source, store: Path, world: World) -> ShortCraftDocument:
    """Craft, and add to the summary what was asked for, how large it was, and what rank 0's journal says."""
    summary = _craft(config, source, store, world)
    cut = Partition(len(source), summary["shards"])
    extent = extent_of(config, source, cut, world.size, world.device.type)
    journal = (store / "run" / "log-00000.jsonl").read_text().splitlines()
    marks = [_mark(json.loads(line)) for line in journal]
    return {**summary, "settings": to_tree(config.method), "extent": to_tree(extent), "marks": marks}


def _mark(line: LineDocument) -> MarkDocument:
    return {
        "stage": line["stage"],
        "craft_seconds": line["craft_seconds"],
        "collectives": line["collectives"],
        "collective_seconds": line["collective_seconds"],
    }


def _craft(config: CraftConfig, source: Source, store: Path, world: World) -> CraftDocument:
    return craft(config, source, Vault(store), world, StopFlag(), resume=False, report=lambda step: None)


def resident_bytes(config: CraftConfig, extent: Extent) -> float:
    """What a worker keeps of its own samples: uint8, or int32 for 16-bit ones, up to the setting's limit."""
    size = extent.own_samples * extent.values * (1 if extent.levels == 255 else 4)
    return min(size, config.world.resident_mebibytes * 2**20)


def label_bytes(extent: Extent) -> int:
    """What every worker holds of the class numbers of all samples."""
    return label_type(extent.classes).itemsize * extent.samples if extent.classes else 0


def grown_bytes(config: CraftConfig, extent: Extent, work: Work) -> float:
    """Memory of the largest worker that grows with the data: own samples, all labels, and what the method holds."""
    return resident_bytes(config, extent) + label_bytes(extent) + work.memory


def store_bytes(config: CraftConfig, extent: Extent, shared: int) -> int:
    """The store without compression: deltas in the smallest integers that hold the budget; ids, and labels where the
    method needs them, and groups where `shared` deltas are shared (0: each sample has its own), of 8 bytes each."""
    method = find(config.method.name)
    item = method.budget(config.method, extent.shape, extent.levels).dtype(extent.levels).itemsize
    labelled = method.needs_labels(config.method)
    numbers = 1 + int(labelled) + int(shared > 0)
    return 8 * numbers * extent.samples + item * extent.values * (shared or extent.samples)
