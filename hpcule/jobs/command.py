"""One hpcule command as a task of a job: passes signals on, and requeues the job if it is to go on later.

`python -m hpcule.jobs.command VERB ...` in a batch script does what a submitted job does.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any

from hpcule.config.errors import HpculeError, PeerLostError, StoppedError, WorkerError
from hpcule.jobs.attempt import Attempt
from hpcule.jobs.requeue import job_facts, requeue, why_ended
from hpcule.store.files import private_directory
from hpcule.world.launcher import slurm_job
from hpcule.world.progress import PROGRESS
from hpcule.world.signals import OF_BATCH_SYSTEMS, environment_of_child, held_back

SIGNAL_SECONDS = 5
"""How long a task waits for the signal that has stopped its command: ranks agree before Slurm has reached all nodes."""
CULPRIT_SECONDS = 3
"""How long a task that lost another waits for that one to report an error of its own."""


@dataclass(frozen=True)
class Command:
    """`hpcule ARGUMENTS` in a process of its own, which finds its rank in the environment as under any launcher.

    submitit would answer the signal before the time limit by requeueing at once, while ranks still write. Here the
    command saves first, all its ranks at the same step, and only then one task asks Slurm what is going on, and
    requeues the job or does not.
    """

    arguments: list[str]

    def __call__(self) -> None:
        """Run it, and end this process where it does not succeed: submitit would log an error with its traceback."""
        if code := run_task(self.arguments):
            sys.exit(code)

    def checkpoint(self, *arguments: object) -> Any:
        """What submitit asks before it requeues a job itself: the same command, which goes on where it was."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def run_task(arguments: Sequence[str]) -> int:
    """Run a command as a task of a job, say in one line if it is over, and return the exit code of the task."""
    try:
        _run_and_requeue(arguments)
    except HpculeError as error:
        print(f"hpcule: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _run_and_requeue(arguments: Sequence[str]) -> None:
    """Run a command, and requeue the job if it was stopped and is to go on.

    Raises:
        WorkerError: it failed, or was stopped and would not get any further.
        StoppedError: it was stopped, and nobody wants it to go on by itself.
    """
    job, attempt = slurm_job(os.environ), Attempt.of(os.environ)
    environ = environment_of_child()
    if job:
        private_directory(attempt.folder)
        environ[PROGRESS] = str(attempt.progress)
    code, signals = _run(arguments, environ)
    if code == 0:
        return
    if code == PeerLostError.exit_code and not signals:
        time.sleep(CULPRIT_SECONDS)
    facts = job_facts(job) if job else {}
    outcome = why_ended(code, signals, facts, attempt)
    if job and not attempt.claim(outcome):
        return
    if outcome == "failed" or not job:
        raise WorkerError(f"hpcule {' '.join(arguments)} ended with {code}; its own error is in this job's log")
    requeue(job, outcome, facts, attempt)


def _run(arguments: Sequence[str], environ: dict[str, str]) -> tuple[int, list[int]]:
    """The exit code of a command, and the signals that arrived meanwhile and were passed on to it."""
    signals: list[int] = []

    def forward(number: int, frame: FrameType | None) -> None:
        signals.append(number)
        if child.poll() is None:
            child.send_signal(number)

    with held_back():
        child = subprocess.Popen([sys.executable, "-m", "hpcule", *arguments], env=environ)
        for number in OF_BATCH_SYSTEMS:
            signal.signal(number, forward)
    code = child.wait()
    deadline = time.monotonic() + SIGNAL_SECONDS
    while code == StoppedError.exit_code and not signals and time.monotonic() < deadline:
        time.sleep(0.1)
    return code, signals


if __name__ == "__main__":
    sys.exit(run_task(sys.argv[1:]))
