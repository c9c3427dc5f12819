"""One hpcule command as a task of a job: passes signals on, and has itself requeued where it was stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from types import FrameType
from typing import Any

from hpcule.config.errors import PeerLostError, StoppedError, WorkerError
from hpcule.world.launcher import slurm_job
from hpcule.world.signals import OF_BATCH_SYSTEMS, environment_of_child

MOST_RESTARTS = 3
"""Number of times that a job that lost a rank goes back into the queue: the command itself may be wrong."""


@dataclass(frozen=True)
class Command:
    """`hpcule ARGUMENTS` in a process of its own, which finds its rank in the environment as under any launcher.

    submitit would answer the signal before the time limit by requeueing at once, while ranks still write. Here the
    command saves first, all its ranks at the same step, and only then the job goes back into the queue.
    """

    arguments: list[str]

    def __call__(self) -> None:
        """Run it; raises WorkerError where it failed."""
        child = subprocess.Popen([sys.executable, "-m", "hpcule", *self.arguments], env=environment_of_child())

        def forward(number: int, frame: FrameType | None) -> None:
            if child.poll() is None:
                child.send_signal(number)

        for number in OF_BATCH_SYSTEMS:
            signal.signal(number, forward)
        code = child.wait()
        if code == StoppedError.exit_code or -code in OF_BATCH_SYSTEMS:
            if os.environ.get("SLURM_PROCID", "0") == "0":
                requeue(os.environ)
        elif code == PeerLostError.exit_code and int(os.environ.get("SLURM_RESTART_COUNT", "0")) < MOST_RESTARTS:
            # Any survivor: the first task may be the one that was lost.
            requeue(os.environ)
        elif code:
            raise WorkerError(
                f"hpcule {' '.join(self.arguments)} ended with {code}; its own error is in this job's log"
            )

    def checkpoint(self, *arguments: object) -> Any:
        """What submitit asks before it requeues a job itself: the same command, which goes on where it was."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def requeue(environ: Mapping[str, str]) -> None:
    """Put this job back into the queue.

    Raises:
        WorkerError: Slurm refuses.
    """
    job = slurm_job(environ)
    asked = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True)
    if asked.returncode:
        raise WorkerError(f"job {job} was stopped and saved, but not requeued: {asked.stderr.strip()}; submit it again")
