"""How a study's crafts, victims and cells stand, by the study's files and the queue of the batch system."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypedDict

from hpcule.measure.accuracy import has_learnt
from hpcule.study.folder import ItemStatus, StudyFolder
from hpcule.study.grid import Cell, Factors, StudyGrid, find_item, name_of
from hpcule.study.submitted import ItemJob, SubmittedJobs

EXPLAINED = ("running", "failed", "lost", "skipped")
"""States of items that a cell's line explains."""
STARTING = {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD"}
"""Slurm's states of jobs that do not run yet, or not any more, and will."""


class CellDocument(TypedDict):
    """A cell as `hpcule study status --json` prints it; see `CellStatus`."""

    cell: int
    state: str
    share: float
    notes: list[str]
    factors: Factors


@dataclass(frozen=True)
class CellStatus:
    """waiting, queued, running, done, failed, lost or invalid; with what is running or went wrong."""

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


def item_statuses(folder: StudyFolder, grid: StudyGrid, queue: Mapping[str, str] | None) -> dict[str, ItemStatus]:
    """The state of every craft and victim.

    Args:
        folder: of the study.
        grid: of the study.
        queue: states of the jobs that wait or run, by name, read before this call; None: not known, so that the files
            alone count.
    """
    jobs = SubmittedJobs(folder.path).by_item()
    found = {}
    for key in (*grid.crafts, *grid.victims):
        status = folder.status(key)
        if status.state == "failed" and status.job:
            logs = jobs[key].logs if key in jobs else folder.path / "logs"
            status = replace(status, message=f"{status.message}, log: {logs}/{status.job}*")
        if queue is not None and key in jobs and status.state != "done":
            status = _with_job(status, jobs[key], queue.get(jobs[key].name))
        found[key] = status
    for key, victim in grid.victims.items():
        found[key] = _with_crafts(found[key], [found[craft] for craft in victim.crafts])
    return found


def _with_job(status: ItemStatus, job: ItemJob, state: str | None) -> ItemStatus:
    """The state of an item that is not done, given the state of its last job; None: that has ended."""
    own = status.job == job.name
    if state is None:
        if status.state == "failed" or (status.state == "running" and not own):
            return status
        if job.was_cancelled:
            return ItemStatus("waiting")
        return ItemStatus("lost", message=f"job {job.name} ended without a result, log: {job.logs}/{job.name}*")
    if status.state == "failed" and own:
        return status
    if state in STARTING:
        return ItemStatus("queued", status.share if own else 0.0)
    return status if status.state == "running" and own else ItemStatus("running", message=f"job {job.name}")


def _with_crafts(status: ItemStatus, crafts: Sequence[ItemStatus]) -> ItemStatus:
    """The state of a victim, given those of its crafts: without any, it is skipped."""
    if status.state in ("waiting", "queued", "lost") and crafts:
        ended = [craft.state for craft in crafts if craft.state in ("failed", "lost")]
        if len(ended) == len(crafts):
            return ItemStatus("skipped", message=f"craft {ended[0]}")
    return status


def cell_status(folder: StudyFolder, grid: StudyGrid, cell: Cell, items: Mapping[str, ItemStatus]) -> CellStatus:
    """The state of a cell, given those of all items."""
    crafts = [craft for key in cell.victims.values() for craft in grid.victims[key].crafts]
    found = {key: items[key] for key in dict.fromkeys([*cell.crafts, *crafts, *cell.victims.values()])}
    share = sum(status.share for status in found.values()) / len(found)
    notes = []
    for key, status in found.items():
        if status.state in EXPLAINED:
            left = f", {status.seconds_left / 60:.1f} min left" if status.seconds_left is not None else ""
            notes.append(f"{find_item(grid, key).title} {status.state}: {status.message}{left}")
    states = {status.state for status in found.values()}
    if states == {"done"}:
        return CellStatus(cell, "invalid" if _invalid(folder, cell) else "done", 1.0, notes)
    for state in ("failed", "lost", "running", "queued"):
        if state in states:
            return CellStatus(cell, state, share, notes)
    return CellStatus(cell, "waiting", share, notes)


def _invalid(folder: StudyFolder, cell: Cell) -> bool:
    clean = folder.victim_result(cell.victims["clean"])
    assert clean is not None
    return not has_learnt(clean["last"], clean["chance"])
