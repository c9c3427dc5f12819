"""The process of a job of LSF, PBS or Flux that starts the ranks, and lets the job go on later if its time was short.

`python -m hpcule.jobs.portable_command SYSTEM SCRIPT LAUNCHER ...` is the last line of such a job's script.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from hpcule.config.errors import HpculeError, PeerLostError, StoppedError, WorkerError
from hpcule.jobs.attempt import Attempt, Outcome
from hpcule.jobs.requeue import refuse_repeated
from hpcule.store.files import private_directory, write_atomically
from hpcule.world.progress import PROGRESS
from hpcule.world.signals import OF_BATCH_SYSTEMS, STOP_AT

OWN_NAMES = {"pbs": 'echo "$PBS_JOBID"', "flux": "flux getattr jobid"}
"""How a job learns its own name; flux batch sets no variable for it."""
SUBMISSIONS = {"pbs": ("qsub",), "flux": ("flux", "--parent", "batch")}
"""How a job submits its script again; flux speaks to the instance of the job itself unless it is given --parent."""
REQUEUED = 75
"""Exit code on which LSF requeues a job, by the option `-Q` of our scripts."""


def run_job(system: str, script: Path, ranks: Sequence[str]) -> int:
    """Start the ranks, wait for them, and let the job go on later where its time was short.

    Args:
        system: "lsf", "pbs" or "flux".
        script: of this job.
        ranks: the words that start them.

    Returns:
        The exit code of the job.
    """
    folder = script.with_name(f"{script.stem}_attempts")
    private_directory(folder)
    attempt = Attempt(folder, len(list(folder.glob("*-outcome"))))
    code, signals = _run(ranks, {**os.environ, PROGRESS: str(attempt.progress)})
    if code == 0:
        return 0
    outcome = _outcome(code, signals)
    attempt.claim(outcome)
    try:
        if outcome == "failed":
            raise WorkerError(f"{script.stem} ended with {code}; its own error is in this job's log")
        if outcome == "cancelled":
            raise StoppedError(f"{script.stem} was stopped by somebody: submit it again to continue with what is saved")
        refuse_repeated(script.stem, outcome, attempt)
        return _go_on(system, script, outcome)
    except HpculeError as error:
        print(f"hpcule: {error}", file=sys.stderr)
        # LSF takes this one for the request to requeue.
        return 1 if error.exit_code == REQUEUED else error.exit_code


def _outcome(code: int, signals: Sequence[int]) -> Outcome:
    """How the ranks ended. Launchers change exit codes, so the time and our own signals come first."""
    if float(os.environ.get(STOP_AT, "inf")) <= time.time():
        return "time limit"
    if signals or code == StoppedError.exit_code:
        return "cancelled"
    return "lost" if code == PeerLostError.exit_code else "failed"


def _go_on(system: str, script: Path, outcome: Outcome) -> int:
    """Let the job go on later.

    Raises:
        WorkerError: the batch system refuses.
    """
    if system == "lsf":
        print(
            f"hpcule: {script.stem} was stopped ({outcome}): requeued, to continue with what is saved", file=sys.stderr
        )
        return REQUEUED
    try:
        asked = subprocess.run([*SUBMISSIONS[system], str(script)], capture_output=True, text=True)
        refusal = asked.stderr.strip() if asked.returncode else ""
    except OSError as error:
        refusal = f"{SUBMISSIONS[system][0]}: {error.strerror}"
    if refusal:
        raise WorkerError(
            f"{script.stem} was stopped ({outcome}) and could not submit itself again ({refusal}): submit it to "
            "continue with what is saved"
        )
    job = asked.stdout.split()[-1]
    own = subprocess.run(["sh", "-c", OWN_NAMES[system]], capture_output=True, text=True).stdout.strip()
    if own:
        write_atomically(script.with_name(f"{own}.next"), job.encode())
    print(
        f"hpcule: {script.stem} was stopped ({outcome}): job {job} continues with what is saved; jobs that wait for "
        "this one do not wait for that one, and have to be submitted again",
        file=sys.stderr,
    )
    return 1


def _run(words: Sequence[str], environ: dict[str, str]) -> tuple[int, list[int]]:
    """The exit code of a launcher, and the signals that arrived meanwhile and were passed on to it."""
    signals: list[int] = []
    children: list[subprocess.Popen[bytes]] = []

    def forward(number: int, frame: FrameType | None) -> None:
        signals.append(number)
        for child in children:
            if child.poll() is None:
                child.send_signal(number)

    for number in (*OF_BATCH_SYSTEMS, signal.SIGINT):
        signal.signal(number, forward)
    # Not with signals held back: a launcher would inherit that, and never see one.
    children.append(subprocess.Popen(list(words), env=environ))
    for early in list(signals):
        children[0].send_signal(early)
    return children[0].wait(), signals


if __name__ == "__main__":
    sys.exit(run_job(sys.argv[1], Path(sys.argv[2]), sys.argv[3:]))
