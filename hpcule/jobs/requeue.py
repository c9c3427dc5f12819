"""Why a job's command was stopped, as Slurm has it, and the return of the job to the queue."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Collection, Mapping

from hpcule.config.errors import PeerLostError, StoppedError, WorkerError
from hpcule.jobs.attempt import Attempt, Outcome
from hpcule.jobs.scheduler import facts_of
from hpcule.world.signals import OF_BATCH_SYSTEMS

MOST_LOSSES = 3
"""Number of times in a row that a job is requeued which lost a rank and saved nothing: the command may be wrong."""
MOST_TIME_LIMITS = 1
"""Number of times in a row that a job is requeued which saved nothing until shortly before its time limit: it may have
had a slow start, or a signal that was meant for the attempt before."""
LIMIT_SIGNALS = {signal.SIGUSR1, signal.SIGUSR2}
"""Signals that our scripts request before the time limit. TERM is no request to come back: scancel sends it, too."""


def why_ended(code: int, signals: Collection[int], facts: Mapping[str, str], attempt: Attempt) -> Outcome:
    """How an attempt ended.

    Args:
        code: exit code of the command, not 0; negative if a signal ended it.
        signals: that its task has received.
        facts: of the job, from Slurm; see `job_facts`.
        attempt: that has ended.
    """
    if code not in (StoppedError.exit_code, PeerLostError.exit_code) and -code not in OF_BATCH_SYSTEMS:
        return "failed"
    if int(facts.get("Restarts") or 0) > attempt.number:
        return "requeued"
    running = is_running(facts)
    preempted = facts.get("PreemptTime", "None")
    # Ended at the very moment of preemption: not granted any time of grace. Ended later: cancelled meanwhile.
    if preempted != "None" and (running or facts.get("EndTime") == preempted):
        return "preempted"
    if not running:
        return "time limit" if facts.get("Reason") == "TimeLimit" else "cancelled"
    if LIMIT_SIGNALS & set(signals):
        return "time limit"
    if code == PeerLostError.exit_code and not signals:
        return "lost"
    return "stopped"


def requeue(job: str, outcome: Outcome, facts: Mapping[str, str], attempt: Attempt) -> None:
    """Put a job back into the queue if it is to go on there, and say so on standard error.

    Args:
        job: its name.
        outcome: of its attempt.
        facts: of the job, from Slurm.
        attempt: that has ended.

    Raises:
        StoppedError: it is not to go on.
        WorkerError: it would not get any further, or Slurm refuses.
    """
    if outcome == "requeued":
        _say(f"job {job}: Slurm has requeued it")
        return
    if outcome in ("cancelled", "stopped"):
        raise StoppedError(
            f"job {job} was {outcome} by somebody and is not requeued: submit it again to continue with what is saved"
        )
    refuse_repeated(f"job {job}", outcome, attempt)
    # Said before: a job that is requeued is killed at once.
    _say(f"job {job} was stopped ({outcome}): requeued, to continue with what is saved")
    # A job that somebody cancels at this moment is no longer running, and `incomplete` leaves it alone.
    words = ["scontrol", "requeue", *(["incomplete"] if is_running(facts) else []), job]
    try:
        asked = subprocess.run(words, capture_output=True, text=True)
        refusal = asked.stderr.strip() if asked.returncode else ""
    except OSError as error:
        refusal = f"scontrol: {error.strerror}"
    if refusal:
        raise WorkerError(
            f"job {job} was stopped ({outcome}) and is not requeued ({refusal}): submit it again to continue with "
            "what is saved"
        )


def refuse_repeated(job: str, outcome: Outcome, attempt: Attempt) -> None:
    """Stop a job that ends in the same way again and again without saving anything in between.

    Args:
        job: what it is called in messages.
        outcome: of its attempt.
        attempt: that has ended.

    Raises:
        WorkerError: it would not get any further.
    """
    times = attempt.repeated(outcome)
    if outcome == "time limit" and times > MOST_TIME_LIMITS:
        raise WorkerError(
            f"{job} has saved nothing new within its time limit and is not requeued: what it does is longer than "
            "the limit; raise it (--time of sbatch, `minutes: N` in the site file)"
        )
    if outcome == "lost" and times > MOST_LOSSES:
        raise WorkerError(
            f"{job} has lost a rank {times} times without saving anything in between, and is not requeued: find "
            "the first error in its log"
        )


def _say(text: str) -> None:
    print(f"hpcule: {text}", file=sys.stderr, flush=True)


def is_running(facts: Mapping[str, str]) -> bool:
    """Whether Slurm takes the job for running: once cancelled, preempted or timed out, it is completing."""
    return facts.get("JobState", "RUNNING") == "RUNNING"


def job_facts(job: str) -> dict[str, str]:
    """What `scontrol show job` says, by name; empty if it does not answer."""
    try:
        shown = subprocess.run(["scontrol", "--oneliner", "show", "job", job], capture_output=True, text=True)
    except OSError:
        return {}
    return facts_of(shown.stdout)
