"""A study's results: one row a cell, and what the rows say for each point of the grid over its seeds."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcule.config.errors import StoreError, UsageError
from hpcule.measure.accuracy import Summary, has_learnt, summarise
from hpcule.store.files import write_atomically
from hpcule.study.folder import StudyFolder, damage_named
from hpcule.study.grid import Cell, StudyGrid
from hpcule.study.paired import PairedDifference, compare_paired
from hpcule.victim.kinds import TITLES, Kind

RANDOM: Mapping[Kind, str] = {
    "noise": "a random pattern with the full budget, shared by the same samples",
    "matched": "a random pattern as strong as the method's perturbation, shared by the same samples",
}
"""Random controls that a method has to beat, in words."""
Row = dict[str, Any]
OF_CRAFT = ("craft_seconds", "workers", "samples", "peak_memory_mebibytes")
OF_TRAINING = ("trained_samples", "loss_first", "loss_last", "loss_steps", "saturated")
PER_VICTIM = ("last", "best", "train", "steps", "steps_to_target", "seconds")


@dataclass(frozen=True)
class Point:
    """One combination of factors, over its seeds."""

    factors: Mapping[str, Any]
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
        results = {role: folder.result(key) for role, key in cell.victims.items()}
        done = {role: result for role, result in results.items() if result is not None}
        if len(done) < len(results):
            continue
        with damage_named(folder.path / "done", f"delete the results of cell {cell.number} to do them again"):
            found.append(_row(folder, cell, done))
    return found


def _row(folder: StudyFolder, cell: Cell, done: Mapping[Kind, Mapping[str, Any]]) -> Row:
    row: Row = {"cell": cell.number, **cell.factors}
    row |= _craft_columns(folder, cell, done["protected"]["craft"])
    for role, result in done.items():
        row |= {f"{role}_{name}": _value(result, name) for name in PER_VICTIM}
        row |= _noise_columns(role, result)
    chance = done["clean"]["chance"]
    row["chance"] = chance
    row["invalid"] = not has_learnt(row["clean_last"], chance)
    return row


def _craft_columns(folder: StudyFolder, cell: Cell, key: str) -> Row:
    result = folder.result(key)
    if result is None:
        raise StoreError(f"{folder.path}: the result of craft {key} is missing, yet a victim was trained on it")
    settings = result["settings"]
    place = cell.crafts.index(key)
    steps, batch = result["steps_to_target"], settings.get("batch")
    return {
        "craft": key,
        **{name: result[name] for name in OF_CRAFT},
        "craft_batch": batch,
        "craft_learning_rate": settings.get("learning_rate"),
        "craft_rate_at_edge": len(cell.crafts) > 1 and place in (0, len(cell.crafts) - 1),
        "craft_rates_tried": len(cell.crafts),
        "craft_worker_hours": result["craft_seconds"] * result["workers"] / 3600,
        **{f"craft_{name}": result[name] for name in OF_TRAINING},
        "craft_steps_to_target": steps,
        "craft_samples_to_target": steps * batch if steps is not None and batch is not None else None,
        **_noise_columns("craft", result),
    }


def _noise_columns(who: str, result: Mapping[str, Any]) -> Row:
    """Columns of the noise scale of a whole run; empty if its gradients were not measured."""
    scales = result["noise_scales"]
    if not scales:
        return {}
    names = {"noise_scale": "noise_scale", "low": "noise_low", "high": "noise_high", "reason": "noise_reason"}
    return {f"{who}_{column}": scales[0][name] for name, column in names.items()}


def _value(result: Mapping[str, Any], name: str) -> Any:
    return result["curve"][-1]["train"] if name == "train" else result.get(name)


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
    of_victim = [name for name in factors if name == "recipe" or name.startswith("victim.")]
    values = {role: [row[f"{role}_last"] for row in valid] for role in TITLES if f"{role}_last" in group[0]}
    return Point(
        {name: group[0][name] for name in factors},
        len(group),
        len(group) - len(valid),
        sum(bool(row.get("craft_rate_at_edge")) for row in group),
        {role: summarise(found) for role, found in values.items() if found},
        {role: compare_paired(values[role], values["protected"]) for role in RANDOM if values.get(role)},
        frozenset((row["craft"], *(str(row[name]) for name in of_victim)) for row in group),
    )


def write_rows(found: Sequence[Row], out: Path) -> list[Path]:
    """Write cells.csv, and cells.parquet where pyarrow is installed; returns what was written.

    Raises:
        UsageError: no cell is finished.
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
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(found)), buffer)
    write_atomically(out / "cells.parquet", buffer.getvalue())
    return [out / "cells.csv", out / "cells.parquet"]
