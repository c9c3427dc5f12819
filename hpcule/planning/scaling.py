"""Measured scaling: crafts with 1..W workers, on the same samples (strong) or on a fixed number a worker (weak)."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Literal, TypedDict

from hpcule.config.errors import UsageError
from hpcule.config.tree import Tree, to_tree
from hpcule.config.version import __version__
from hpcule.craft.config import CraftConfig
from hpcule.craft.preparation import check, cut_into_shards
from hpcule.data.source import Source
from hpcule.planning.calibrate import local_workers
from hpcule.planning.trial import start_craft
from hpcule.store.files import private_directory, to_json, write_atomically
from hpcule.store.vault import Vault

Kind = Literal["strong", "weak"]
PARTS = ("compute", "wait", "communication", "storage")
"""What a run's seconds divide into."""


@dataclass(frozen=True)
class ScalingPoint:
    """What is run several times: a kind of scaling, a number of workers, and their samples and shards."""

    kind: Kind
    workers: int
    samples: int
    shards: int


class RunDocument(TypedDict):
    """One run of a point: seconds from start to end, of the run itself, of crafting, and of the run's parts."""

    wall_seconds: float
    run_seconds: float
    craft_seconds: float
    compute_seconds: float
    wait_seconds: float
    communication_seconds: float
    storage_seconds: float
    peak_memory_mebibytes: int


class PointDocument(RunDocument):
    """A point, and its run with the median crafting time; `efficiency` is a share of ideal."""

    kind: Kind
    workers: int
    samples: int
    shards: int
    images_per_second: float
    efficiency: float
    all_craft_seconds: list[float]


class ScalingDocument(TypedDict):
    """The whole of results.json; `load` is the machine's load average before, `runs` those of every point."""

    kind: str
    hpcule: str
    method: str
    preset: str
    data: str
    samples: int
    cores: int
    device: str
    load: float
    runs: int
    points: list[PointDocument]
    warnings: list[str]
    settings: Tree


def scaling_points(samples: int, shards: int, workers: int) -> list[ScalingPoint]:
    """Strong: all samples. Weak: the same number of samples and of shards a worker; its last point is strong's.

    Raises:
        UsageError: fewer samples than workers.
    """
    if samples < 2 * workers:
        raise UsageError(f"{samples} samples for 1 to {workers} workers: at least {2 * workers}, or fewer workers")
    strong = [ScalingPoint("strong", count, samples, shards) for count in range(1, workers + 1)]
    weak = [
        ScalingPoint("weak", count, samples * count // workers, max(count, shards * count // workers))
        for count in range(1, workers + 1)
    ]
    return strong + weak


def measure(
    config: CraftConfig, source: Source, workers: int, runs: int, out: Path, report: Callable[[str], None]
) -> ScalingDocument:
    """Run every point `runs` times, and write results.json to `out`.

    The stores are made below `out`, whose disk is then the one that was measured, and deleted.

    Raises:
        UsageError: more workers than shards, or a setting that the method refuses.
        WorkerError: a run failed.
    """
    private_directory(out)
    with tempfile.TemporaryDirectory(prefix="running-", dir=out) as folder:
        load = os.getloadavg()[0]
        check(config, source, Vault(Path(folder) / "store"), resume=False, workers=workers)
        shards = cut_into_shards(config, source, workers).count
        plan = scaling_points(len(source), shards, workers)
        found: dict[ScalingPoint, list[RunDocument]] = {}
        device = ""
        for number, point in enumerate(plan):
            twin = dataclasses.replace(point, kind="strong")
            if twin in found:
                found[point] = found[twin]
                continue
            found[point] = []
            for turn in range(runs):
                report(f"{point.kind}, {point.workers} worker(s), {point.samples:,} samples, run {turn + 1}/{runs}")
                device, summary = _run(config, point, Path(folder) / f"{number}-{turn}")
                found[point].append(summary)
    results: ScalingDocument = {
        "kind": "scale",
        "hpcule": __version__,
        "method": config.method.name,
        "preset": config.preset,
        "data": source.name,
        "samples": len(source),
        "cores": len(os.sched_getaffinity(0)),
        "device": device,
        "load": load,
        "runs": runs,
        "points": _rows(found),
        "warnings": scaling_warnings(config, workers),
        "settings": {**to_tree(config), "data": source.name},
    }
    write_atomically(out / "results.json", to_json(results))
    return results


def scaling_warnings(config: CraftConfig, workers: int) -> list[str]:
    """What the figures do not show."""
    room = local_workers(config.world, workers)
    if room == workers:
        return []
    return [
        f"This machine runs {room} workers at the same time: with more, the figures measure the crowding, not scaling."
    ]


def shares(row: RunDocument) -> list[tuple[str, float]]:
    """The parts of a run, as shares of it that add up to 1."""
    seconds = (row["compute_seconds"], row["wait_seconds"], row["communication_seconds"], row["storage_seconds"])
    return [(name, part / sum(seconds)) for name, part in zip(PARTS, seconds, strict=True)]


def _run(config: CraftConfig, point: ScalingPoint, folder: Path) -> tuple[str, RunDocument]:
    """The type of device and the figures of one craft in processes of its own; its store goes away at once."""
    store = dataclasses.replace(config.store, shards=point.shards)
    results, wall = start_craft(dataclasses.replace(config, store=store), point.samples, folder, point.workers)
    summary = results["runs"][0]
    return results["device"], {
        "wall_seconds": wall,
        "run_seconds": summary["run_seconds"],
        "craft_seconds": summary["craft_seconds"],
        "compute_seconds": summary["compute_seconds"],
        "wait_seconds": summary["wait_seconds"],
        "communication_seconds": summary["communication_seconds"],
        "storage_seconds": summary["storage_seconds"],
        "peak_memory_mebibytes": summary["peak_memory_mebibytes"],
    }


def _rows(found: Mapping[ScalingPoint, Sequence[RunDocument]]) -> list[PointDocument]:
    """One row a point: that of the run with the median crafting time, all runs' times, and the efficiency.

    Strong: t(1) / (W t(W)). Weak: t(1) / t(W). Over crafting time: start-up and storage are reported separately.
    """
    rows: list[PointDocument] = []
    alone: dict[Kind, float] = {}
    for point, runs in found.items():
        seconds = [run["craft_seconds"] for run in runs]
        middle = min(runs, key=lambda run: (abs(run["craft_seconds"] - median(seconds)), run["craft_seconds"]))
        base = alone.setdefault(point.kind, middle["craft_seconds"])
        efficiency = base / middle["craft_seconds"] / (point.workers if point.kind == "strong" else 1)
        rows.append(
            {
                "kind": point.kind,
                "workers": point.workers,
                "samples": point.samples,
                "shards": point.shards,
                **middle,
                "images_per_second": point.samples / middle["craft_seconds"],
                "efficiency": efficiency,
                "all_craft_seconds": seconds,
            }
        )
    return rows
