"""Jobs that a study has submitted: one file for each array in the study's folder, jobs/NUMBER.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NotRequired, TypedDict

from hpcule.config.documents import checked
from hpcule.store.files import private_directory, read_json, to_json, write_atomically
from hpcule.study.folder import damage_named


class ArrayDocument(TypedDict):
    """jobs/NUMBER.json: an array of jobs; `items` are the keys that each of its tasks does, `cancelled` by
    `hpcule study cancel`. Without `system` it is Slurm's; other systems have arrays of one job."""

    job: str
    batch: str
    stage: str
    tasks: int
    items: list[list[str]]
    code: str
    logs: str
    time: float
    cancelled: bool
    system: NotRequired[str]


@dataclass(frozen=True)
class SubmittedJobs:
    """The arrays of a study, oldest first."""

    path: Path
    """Folder of the study."""

    def note(self, array: ArrayDocument) -> None:
        """Write down an array that was submitted."""
        folder = self.path / "jobs"
        private_directory(folder)
        write_atomically(folder / f"{array['job']}.json", to_json(array))

    def arrays(self) -> list[ArrayDocument]:
        """All arrays, oldest first."""
        found = []
        for path in (self.path / "jobs").glob("*.json"):
            with damage_named(path, "delete it; its jobs are then unknown to the study"):
                array: ArrayDocument = checked(read_json(path), ArrayDocument)
                found.append((array["time"], array))
        return [array for _, array in sorted(found, key=lambda pair: pair[0])]

    def mark_cancelled(self, arrays: Sequence[ArrayDocument]) -> None:
        """Write down that these arrays were cancelled."""
        for array in arrays:
            self.note({**array, "cancelled": True})

    def by_item(self) -> dict[str, ItemJob]:
        """The last job of each item."""
        found: dict[str, ItemJob] = {}
        for array in self.arrays():
            for index, keys in enumerate(array["items"]):
                job = ItemJob(f"{array['job']}_{index}", Path(array["logs"]), array["cancelled"])
                found |= dict.fromkeys(keys, job)
        return found


@dataclass(frozen=True)
class ItemJob:
    """The job that does an item: its name in the batch system, its logs, and whether it was cancelled."""

    name: str
    logs: Path
    was_cancelled: bool


def alive(jobs: Mapping[str, ItemJob], states: Mapping[str, str]) -> dict[str, str]:
    """Names of the jobs that wait or run, by item.

    Args:
        jobs: the last job of each item.
        states: state of every job in the queue, by name.
    """
    return {key: job.name for key, job in jobs.items() if job.name in states}
