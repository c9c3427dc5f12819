"""One of the attempts of a job, which ends when the job is done or requeued: what its tasks know of it together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hpcule.store.files import private_directory
from hpcule.world.launcher import slurm_job

Outcome = Literal["failed", "requeued", "cancelled", "preempted", "time limit", "stopped", "lost"]
"""How an attempt ended, if its command did not succeed.

The command failed; Slurm has requeued the job by itself; somebody cancelled it; it was preempted; its time limit is
near or reached; somebody sent a signal alone; a rank, perhaps with its node, was lost.
"""


@dataclass(frozen=True)
class Attempt:
    """The files of an attempt, in a private folder that all nodes see.

    Attributes:
        folder: of all attempts of the job.
        number: of requeues before this attempt.
    """

    folder: Path
    number: int

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Attempt:
        """This job's attempt: next to the logs of a submitted command, below the current folder for other scripts."""
        parent = Path(environ.get("SUBMITIT_FOLDER", "hpcule-runs/jobs")).absolute()
        return cls(parent / f"{slurm_job(environ)}_attempts", int(environ.get("SLURM_RESTART_COUNT") or 0))

    @property
    def progress(self) -> Path:
        """File that is there if the command has saved something in this attempt."""
        return self._file(self.number, "progress")

    def claim(self, outcome: Outcome) -> bool:
        """Note how the attempt ended; False if another task has already done so, and acts on it.

        Raises:
            StoreError: the folder cannot be created.
            OSError: the note cannot be written.
        """
        private_directory(self.folder)
        try:
            with self._file(self.number, "outcome").open("x") as file:
                file.write(outcome)
        except FileExistsError:
            return False
        return True

    def repeated(self, outcome: Outcome) -> int:
        """Number of attempts, up to this one, that ended in this way after the last one that saved something."""
        count = 0
        for number in range(self.number, -1, -1):
            if self._file(number, "progress").exists():
                break
            path = self._file(number, "outcome")
            count += path.exists() and path.read_text() == outcome
        return count

    def _file(self, number: int, name: str) -> Path:
        return self.folder / f"{number}-{name}"
