"""The batch system of a site: Slurm through submitit; LSF, PBS and Flux through PSI/J."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NotRequired, TypedDict

from hpcule.jobs import submit
from hpcule.jobs.limits import Limits, check_site, job_limits
from hpcule.jobs.portable import cancel_portable, check_portable, portable_scripts, portable_states, submit_portable
from hpcule.jobs.scheduler import cancel, queue
from hpcule.jobs.site import SiteConfig
from hpcule.jobs.submit import CommandBatch, Submission


class JobRecord(TypedDict):
    """What is known of a job, or an array of jobs, that was submitted; without a system it is Slurm's."""

    job: str
    logs: str
    system: NotRequired[str]


def check_system(site: SiteConfig) -> None:
    """Refuse a site to which nothing can be submitted from here, or whose jobs could never start.

    Raises:
        UsageError: says why.
    """
    if site.system == "slurm":
        check_site(site)
    else:
        check_portable(site)


def limits_of(site: SiteConfig) -> Limits:
    """How many jobs may be submitted; other systems than Slurm refuse what is beyond their limits."""
    return job_limits(site) if site.system == "slurm" else Limits()


def scripts_of(batches: Sequence[CommandBatch], submission: Submission) -> Iterator[str]:
    """Lines that say what is submitted, and the scripts themselves."""
    slurm = submission.site.system == "slurm"
    return (submit.scripts if slurm else portable_scripts)(batches, submission)


def submit_to_site(
    batches: Sequence[CommandBatch], submission: Submission, note: Callable[[CommandBatch, str], None]
) -> list[str]:
    """Submit the batches in their order; returns a line for each.

    Args:
        batches: of which later ones may wait for earlier ones.
        submission: where and how.
        note: called with what was submitted, and its name, as soon as there is one.

    Raises:
        UsageError: a batch is refused; then those before it are cancelled.
    """
    slurm = submission.site.system == "slurm"
    return (submit.submit_batches if slurm else submit_portable)(batches, submission, note)


def states_of(records: Sequence[JobRecord]) -> dict[str, str]:
    """State of every task that waits or runs, by name: `12_3` is task 3 of array 12.

    Raises:
        UsageError: a batch system does not answer.
    """
    found: dict[str, str] = {}
    for system, jobs in _by_system(records).items():
        if system == "slurm":
            found |= queue()
        else:
            found |= {f"{name}_0": state for name, state in portable_states(system, jobs).items()}
    return found


def cancel_records(records: Sequence[JobRecord]) -> None:
    """Take jobs out of the queue, and end those that run.

    Raises:
        UsageError: a batch system refuses.
    """
    for system, jobs in _by_system(records).items():
        if system == "slurm":
            cancel(list(jobs))
        else:
            cancel_portable(system, jobs)


def _by_system(records: Sequence[JobRecord]) -> dict[str, dict[str, Path]]:
    """Folder of the logs, by system and job."""
    found: dict[str, dict[str, Path]] = defaultdict(dict)
    for record in records:
        found[record.get("system", "slurm")][record["job"]] = Path(record["logs"])
    return found
