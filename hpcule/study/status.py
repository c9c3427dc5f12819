"""How a study's cells stand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

from hpcule.measure.accuracy import has_learnt
from hpcule.study.folder import StudyFolder
from hpcule.study.grid import Cell, Factors, StudyGrid, find_item, name_of


class CellDocument(TypedDict):
    """A cell as `hpcule study status --json` prints it; see `CellStatus`."""

    cell: int
    state: str
    share: float
    notes: list[str]
    factors: Factors


@dataclass(frozen=True)
class CellStatus:
    """waiting, running, done, failed or invalid; with what is running or went wrong."""

    cell: Cell
    state: str
    share: float
    """Finished share of the cell's crafts and victims, 0 to 1."""
    notes: list[str]

    def line(self) -> str:
        """Return one line for a terminal."""
        factors = ", ".join(f"{name_of(name)} {value}" for name, value in self.cell.factors.items())
        head = f"{self.cell.number:4d}  {self.state:8s} {100 * self.share:3.0f}%  {factors}"
        return "  | ".join([head, *self.notes])

    def document(self) -> CellDocument:
        """Return plain values for --json."""
        return {
            "cell": self.cell.number,
            "state": self.state,
            "share": round(self.share, 3),
            "notes": self.notes,
            "factors": self.cell.factors,
        }


def cell_status(folder: StudyFolder, grid: StudyGrid, cell: Cell) -> CellStatus:
    """Read the files of a cell's items."""
    crafts = [craft for key in cell.victims.values() for craft in grid.victims[key].crafts]
    keys = list(dict.fromkeys([*cell.crafts, *crafts, *cell.victims.values()]))
    found = {key: folder.status(key) for key in keys}
    share = sum(status.share for status in found.values()) / len(found)
    notes = []
    for key, status in found.items():
        if status.state in ("running", "failed"):
            left = f", {status.seconds_left / 60:.1f} min left" if status.seconds_left is not None else ""
            notes.append(f"{find_item(grid, key).title} {status.state}: {status.message}{left}")
    states = {status.state for status in found.values()}
    if states == {"done"}:
        return CellStatus(cell, "invalid" if _invalid(folder, cell) else "done", 1.0, notes)
    for state in ("failed", "running"):
        if state in states:
            return CellStatus(cell, state, share, notes)
    return CellStatus(cell, "waiting", share, notes)


def _invalid(folder: StudyFolder, cell: Cell) -> bool:
    clean = folder.victim_result(cell.victims["clean"])
    assert clean is not None
    return not has_learnt(clean["last"], clean["chance"])
