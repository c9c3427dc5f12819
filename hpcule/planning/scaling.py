"""Measured scaling: crafts with 1..W workers, on the same samples (strong) or on a fixed number a worker (weak)."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

from hpcule.config.errors import UsageError
from hpcule.config.tree import to_tree
from hpcule.config.version import __version__
from hpcule.craft.config import CraftConfig
from hpcule.craft.preparation import check, cut_into_shards
from hpcule.data.source import Source
from hpcule.planning.calibrate import local_workers
from hpcule.planning.trial import Trial, start
from hpcule.store.files import private_directory, to_json, write_atomically
from hpcule.store.vault import Vault

Kind = Literal["strong", "weak"]
PARTS = ("compute", "wait", "communication", "storage")
KEPT = ("wall", "run", "craft", *PARTS)


@dataclass(frozen=True)
class ScalingPoint:
    """What is run several times: a kind of scaling, a number of workers, and their samples and shards."""

    kind: Kind
    workers: int
    samples: int
    shards: int


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
) -> dict[str, Any]:
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
        found: dict[ScalingPoint, list[dict[str, float]]] = {}
        device = ""
        for number, point in enumerate(plan):
            twin = dataclasses.replace(point, kind="strong")
            if twin in found:
                found[point] = found[twin]
                continue
            found[point] = []
            for turn in range(runs):
                report(f"{point.kind}, {point.workers} worker(s), {point.samples:,} samples, run {turn + 1}/{runs}")
                summary = _run(config, point, Path(folder) / f"{number}-{turn}")
                device = summary.pop("device")
                found[point].append(summary)
    results = {
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


def shares(row: Mapping[str, Any]) -> list[tuple[str, float]]:
    """The parts of a run, as shares of it that add up to 1."""
    whole = sum(row[f"{name}_seconds"] for name in PARTS)
    return [(name, row[f"{name}_seconds"] / whole) for name in PARTS]


def _run(config: CraftConfig, point: ScalingPoint, folder: Path) -> dict[str, Any]:
    """One craft in processes of its own; its store goes away at once."""
    store = dataclasses.replace(config.store, shards=point.shards)
    results = start(Trial("craft", dataclasses.replace(config, store=store), point.samples), folder, point.workers)
    summary = {**results["runs"][0], "wall_seconds": results["wall_seconds"]}
    kept: dict[str, Any] = {f"{name}_seconds": summary[f"{name}_seconds"] for name in KEPT}
    return {**kept, "peak_memory_mebibytes": summary["peak_memory_mebibytes"], "device": results["device"]}


def _rows(found: Mapping[ScalingPoint, Sequence[Mapping[str, float]]]) -> list[dict[str, Any]]:
    """One row a point: that of the run with the median crafting time, all runs' times, and the efficiency.

    Strong: t(1) / (W t(W)). Weak: t(1) / t(W). Over crafting time: start-up and storage are reported separately.
    """
    rows = []
    alone: dict[Kind, float] = {}
    for point, runs in found.items():
        seconds = [run["craft_seconds"] for run in runs]
        middle = min(runs, key=lambda run: (abs(run["craft_seconds"] - median(seconds)), run["craft_seconds"]))
        base = alone.setdefault(point.kind, middle["craft_seconds"])
        efficiency = base / middle["craft_seconds"] / (point.workers if point.kind == "strong" else 1)
        speed = point.samples / middle["craft_seconds"]
        figures = {"images_per_second": speed, "efficiency": efficiency, "all_craft_seconds": seconds}
        rows.append({**dataclasses.asdict(point), **middle, **figures})
    return rows
