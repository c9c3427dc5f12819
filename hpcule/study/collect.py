"""A study's results: one row a cell, and what the rows say for each point of the grid over its seeds."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcule.config.errors import StoreError, UsageError, first_line
from hpcule.measure.accuracy import ACCURACY, AREA, BALANCED, Summary, has_learnt, summarise
from hpcule.store.files import write_atomically
from hpcule.study.config import DATA
from hpcule.study.documents import NoiseScaleDocument, VictimItemDocument
from hpcule.study.folder import StudyFolder, damage_named
from hpcule.study.grid import Cell, Factors, StudyGrid
from hpcule.study.paired import PairedDifference, compare_paired
from hpcule.victim.kinds import TITLES, Kind

RANDOM: Mapping[Kind, str] = {
    "noise": "a random pattern with the full budget, shared by the same samples",
    "matched": "a random pattern as strong as the method's perturbation, shared by the same samples",
    "spectrum": "random noise with the spectrum of the method's perturbation, shared by the same samples",
}
"""Random controls that a method has to beat, in words."""
Row = dict[str, Any]
"""Columns of a cell by name: they differ with what a study varies."""


@dataclass(frozen=True)
class Point:
    """One combination of factors, over its seeds."""

    factors: Factors
    measure: str
    """What `accuracy` are values of: the headline measure of the task."""
    chance: float
    """What guessing reaches in it."""
    seeds: int
    invalid: int
    """Seeds whose clean control did not learn."""
    at_edge: int
    """Seeds whose tuned learning rate is at an end of what was tried."""
    accuracy: Mapping[Kind, Summary]
    leads: Mapping[Kind, PairedDifference]
    """Accuracy on a kind of random noise minus accuracy on protected, seed by seed: what the method adds to sharing a
    pattern."""
    measured: frozenset[tuple[str, ...]]
    """Which crafts were measured with which victims: points that say the same in other words have the same, as those
    of several learning-rate policies at the batch that they start from."""


def rows(folder: StudyFolder, grid: StudyGrid) -> list[Row]:
    """One flat row a cell whose victims are all done, in the order of the grid."""
    found = []
    for cell in grid.cells:
        results = {role: folder.victim_result(key) for role, key in cell.victims.items()}
        done = {role: result for role, result in results.items() if result is not None}
        if len(done) < len(results):
            continue
        with damage_named(folder.path / "done", f"delete the results of cell {cell.number} to do them again"):
            found.append(_row(folder, cell, done) | _rate_columns(grid, cell))
    return found


def _row(folder: StudyFolder, cell: Cell, done: Mapping[Kind, VictimItemDocument]) -> Row:
    row: Row = {"cell": cell.number, **cell.factors}
    row |= _craft_columns(folder, cell, done["protected"]["craft"])
    row["victim_workers"] = done["protected"].get("workers", 1)
    row |= _taken("victim.batch", cell, done["protected"]["batch_taken"])
    for role, result in done.items():
        row |= {f"{role}_{name}": value for name, value in _victim_figures(result).items()}
        row |= _noise_columns(role, result["noise_scales"])
    chance = done["clean"]["chance"]
    row["measure"] = done["clean"].get("measure", ACCURACY)
    row["chance"] = chance
    row["balanced_chance"] = done["clean"].get("balanced_chance")
    row["invalid"] = not has_learnt(row["clean_last"], chance)
    return row


def _rate_columns(grid: StudyGrid, cell: Cell) -> Row:
    """The victims' learning rate, where a policy sets it."""
    if "victim_rate" not in cell.factors:
        return {}
    return {"victim_learning_rate": grid.victims[cell.victims["protected"]].job.config.learning_rate}


def _taken(factor: str, cell: Cell, batch: int | None) -> Row:
    """The value of a factor that is a batch: what was taken, as counted."""
    return {factor: batch} if factor in cell.factors and batch is not None else {}


def _craft_columns(folder: StudyFolder, cell: Cell, key: str | None) -> Row:
    result = folder.craft_result(key) if key else None
    if key is None or result is None:
        raise StoreError(f"{folder.path}: the result of craft {key} is missing, yet a victim was trained on it")
    settings = result["settings"]
    place = cell.crafts.index(key)
    steps, batch = result["steps_to_target"], result["batch_taken"]
    return {
        **_taken("craft.method.batch", cell, batch),
        "craft": key,
        "craft_deltas": result.get("deltas"),
        "craft_seconds": result["craft_seconds"],
        "workers": result["workers"],
        "samples": result["samples"],
        "peak_memory_mebibytes": result["peak_memory_mebibytes"],
        "craft_batch": batch,
        "craft_batch_asked": result["batch_asked"],
        "craft_steps": result["steps"],
        "craft_learning_rate": settings.get("learning_rate"),
        "craft_rate_at_edge": len(cell.crafts) > 1 and place in (0, len(cell.crafts) - 1),
        "craft_rates_tried": len(cell.crafts),
        "craft_worker_hours": result["craft_seconds"] * result["workers"] / 3600,
        "craft_trained_samples": result["samples_seen"] or 0,
        "craft_loss_first": result["loss_first"],
        "craft_loss_last": result["loss_last"],
        "craft_loss_steps": result["loss_steps"],
        "craft_saturated": result["saturated"],
        "craft_moved_first": result.get("moved_first"),
        "craft_moved_last": result.get("moved_last"),
        "craft_steps_to_target": steps,
        "craft_samples_to_target": result["samples_to_target"],
        **_noise_columns("craft", result["noise_scales"]),
    }


def _victim_figures(result: VictimItemDocument) -> Row:
    measures = result.get("measures", {})
    return {
        "last": result["last"],
        "best": result["best"],
        "balanced": measures.get(BALANCED),
        "area": measures.get(AREA),
        "train": result["curve"][-1]["train"],
        "steps": result["steps"],
        "batch": result["batch_taken"],
        "batch_asked": result["batch_asked"],
        "samples_seen": result["samples_seen"],
        "steps_to_target": result["steps_to_target"],
        "seconds": result["seconds"],
    }


def _noise_columns(who: str, scales: Sequence[NoiseScaleDocument]) -> Row:
    """Columns of the noise scale of a whole run; empty if its gradients were not measured."""
    if not scales:
        return {}
    whole = scales[0]
    return {
        f"{who}_noise_scale": whole["noise_scale"],
        f"{who}_noise_low": whole["low"],
        f"{who}_noise_high": whole["high"],
        f"{who}_noise_reason": whole["reason"],
    }


def points(found: Sequence[Row], factors: Sequence[str]) -> list[Point]:
    """The rows put together over their seeds; invalid ones are counted and left out."""
    return [_point(group, factors) for group in grouped(found, factors)]


def grouped(found: Sequence[Row], factors: Sequence[str]) -> list[list[Row]]:
    """The rows with equal values of these factors, group by group, in the order of their first rows."""
    groups: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in found:
        groups[tuple(str(row[name]) for name in factors)].append(row)
    return list(groups.values())


def _point(group: Sequence[Row], factors: Sequence[str]) -> Point:
    valid = [row for row in group if not row["invalid"]]
    of_victim = ["victim_learning_rate", *(n for n in factors if n in ("recipe", DATA) or n.startswith("victim."))]
    values = {role: [row[f"{role}_last"] for row in valid] for role in TITLES if f"{role}_last" in group[0]}
    return Point(
        {name: group[0][name] for name in factors},
        group[0].get("measure", ACCURACY),
        group[0]["chance"],
        len(group),
        len(group) - len(valid),
        sum(bool(row.get("craft_rate_at_edge")) for row in group),
        {role: summarise(found) for role, found in values.items() if found},
        {role: compare_paired(values[role], values["protected"]) for role in RANDOM if values.get(role)},
        frozenset((row["craft"], *(str(row.get(name)) for name in of_victim)) for row in group),
    )


def write_rows(found: Sequence[Row], out: Path) -> list[Path]:
    """Write cells.csv, and cells.parquet where pyarrow is installed; returns what was written.

    Raises:
        UsageError: no cell is finished.
        StoreError: a column holds values that cells.parquet cannot, as of results that were changed.
    """
    if not found:
        raise UsageError(f"{out}: no cell is finished yet; `hpcule study status {out}` shows where they are")
    text = io.StringIO()
    writer = csv.DictWriter(text, list({name: None for row in found for name in row}))
    writer.writeheader()
    writer.writerows(found)
    write_atomically(out / "cells.csv", text.getvalue().encode())
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        return [out / "cells.csv"]
    buffer = io.BytesIO()
    try:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(found)), buffer)
    except (pyarrow.ArrowException, OverflowError) as error:
        reason = f"cells.parquet cannot hold what is in {out / 'cells.csv'} ({first_line(error)})"
        raise StoreError(f"{reason}: delete what was changed in {out / 'done'}, to do it again") from None
    write_atomically(out / "cells.parquet", buffer.getvalue())
    return [out / "cells.csv", out / "cells.parquet"]
