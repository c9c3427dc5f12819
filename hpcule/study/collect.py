"""A study's results: one row a cell, and what the rows say for each point of the grid over its seeds."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcule.config.errors import UsageError
from hpcule.measure.accuracy import Summary, summarise
from hpcule.store.files import write_atomically
from hpcule.study.evaluate import LEARNT
from hpcule.study.folder import StudyFolder
from hpcule.study.grid import Grid, Role
from hpcule.study.paired import Comparison, compare

ROLES: Mapping[Role, str] = {
    "clean": "clean control",
    "noise": "random noise, shared alike",
    "untrained": "untrained generator",
    "protected": "protected",
}
Row = dict[str, Any]
PER_VICTIM = ("last", "best", "train", "steps", "steps_to_target", "seconds")


@dataclass(frozen=True)
class Point:
    """One combination of factors, over its seeds."""

    factors: Mapping[str, Any]
    seeds: int
    invalid: int
    """Seeds whose clean control did not learn."""
    accuracy: Mapping[Role, Summary]
    lead: Comparison | None
    """Accuracy on random noise minus accuracy on protected, seed by seed: what the method adds to sharing a pattern."""


def rows(folder: StudyFolder, grid: Grid) -> list[Row]:
    """One flat row a cell whose victims are all done, in the order of the grid."""
    found = []
    for cell in grid.cells:
        results = {role: folder.result(key) for role, key in cell.victims.items()}
        crafted = folder.result(cell.craft)
        if crafted is None or any(result is None for result in results.values()):
            continue
        row: Row = {"cell": cell.number, **cell.factors, "craft": cell.craft}
        row |= {name: crafted[name] for name in ("craft_seconds", "workers", "samples", "peak_memory_mebibytes")}
        for role, result in results.items():
            row |= {f"{role}_{name}": _value(result or {}, name) for name in PER_VICTIM}
        chance = (results["clean"] or {})["chance"]
        row["chance"] = chance
        row["invalid"] = row["clean_last"] < chance + LEARNT * (1 - chance)
        found.append(row)
    return found


def _value(result: Mapping[str, Any], name: str) -> Any:
    return result["curve"][-1]["train"] if name == "train" else result.get(name)


def points(found: Sequence[Row], factors: Sequence[str]) -> list[Point]:
    """The rows put together over their seeds; invalid ones are counted and left out."""
    groups: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in found:
        groups[tuple(str(row[name]) for name in factors)].append(row)
    return [_point(group, factors) for group in groups.values()]


def _point(group: Sequence[Row], factors: Sequence[str]) -> Point:
    valid = [row for row in group if not row["invalid"]]
    values = {role: [row[f"{role}_last"] for row in valid] for role in ROLES if f"{role}_last" in group[0]}
    return Point(
        {name: group[0][name] for name in factors},
        len(group),
        len(group) - len(valid),
        {role: summarise(found) for role, found in values.items() if found},
        compare(values["noise"], values["protected"]) if valid else None,
    )


def write_rows(found: Sequence[Row], out: Path) -> list[Path]:
    """Write cells.csv, and cells.parquet where pyarrow is installed; returns what was written.

    Raises:
        UsageError: no cell is finished.
    """
    if not found:
        raise UsageError(f"{out}: no cell is finished yet; `hpcule study status {out}` shows where they are")
    text = io.StringIO()
    writer = csv.DictWriter(text, list(found[0]))
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
