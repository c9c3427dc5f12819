"""Batches of commands as jobs of LSF, PBS or Flux, one job a command; all of them are submitted, or none."""

from __future__ import annotations

import dataclasses
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType

from hpcule.config.errors import HpculeError, UsageError
from hpcule.jobs.code_copy import is_current, make_copy
from hpcule.jobs.portable_script import PortableJob, script
from hpcule.jobs.site import SiteConfig
from hpcule.jobs.submit import CommandBatch, Submission, environment_lines, python_words
from hpcule.store.files import private_directory, write_atomically

COMMANDS = {"lsf": "bsub", "pbs": "qsub", "flux": "flux"}
"""The command of each system that submits."""
SLURM_STATES = {"QUEUED": "PENDING", "ACTIVE": "RUNNING"}
"""States of jobs that run or will, in PSI/J's words, and the same in Slurm's."""
Ids = Mapping[str, Sequence[str]]
"""Names of jobs in the batch system, by the batch that they are of."""


def check_portable(site: SiteConfig) -> None:
    """Refuse a site from whose system nothing can be submitted here.

    Raises:
        UsageError: the command that submits is missing, or PSI/J is.
    """
    command = COMMANDS[site.system]
    if shutil.which(command) is None:
        raise UsageError(f"there is no {command} on this machine: submit from a login node of the cluster")
    _executors()


def portable_scripts(batches: Sequence[CommandBatch], submission: Submission) -> Iterator[str]:
    """The script of each job, byte for byte, but for numbers of jobs that are not known yet: ID-OF-BATCH-TASK."""
    ids = {batch.name: [f"ID-OF-{batch.name.upper()}-{index}" for index in range(batch.tasks)] for batch in batches}
    for batch in batches:
        for job in _jobs(batch, submission, ids):
            yield f"# {job.name}: hpcule {shlex.join(job.arguments)}"
            yield _script(job, submission)


def submit_portable(
    batches: Sequence[CommandBatch], submission: Submission, note: Callable[[CommandBatch, str], None]
) -> list[str]:
    """Submit the batches in their order; returns a line for each.

    Args:
        batches: of which later ones may wait for earlier ones.
        submission: where and how.
        note: called for each job with a batch of it alone and its name, as soon as there is one.

    Raises:
        UsageError: PSI/J is missing, or the batch system refuses a job; then those before it are cancelled.
    """
    submit_script, system = _executors().submit_script, submission.site.system
    for folder in (submission.folder, submission.logs):
        private_directory(folder)  # Scripts and commands may hold a seed.
    make_copy(submission.code)
    ids: dict[str, list[str]] = {}
    lines = []
    for batch in batches:
        own = ids[batch.name] = []
        for index, job in enumerate(_jobs(batch, submission, ids)):
            text = _script(job, submission)
            write_atomically(job.path, text.encode(), mode=0o700)
            try:
                own.append(submit_script(system, job.name, text, submission.logs / "psij"))
            except UsageError as error:
                before = [name for names in ids.values() for name in names]
                raise UsageError(f"{error}; {_cancelled(system, before, submission.logs)}") from None
            note(
                dataclasses.replace(
                    batch, commands=batch.commands[index : index + 1], items=batch.items[index : index + 1]
                ),
                own[-1],
            )
        lines.append(f"{batch.name}: {len(own)} job(s) of {system}, {own[0]} to {own[-1]}")
    if not is_current(submission.code):
        lines.append(
            f"the code is the copy in {submission.code}, which differs from the package: --refresh-code takes a new "
            "copy"
        )
    return lines


def portable_states(system: str, jobs: Mapping[str, Path]) -> dict[str, str]:
    """States of the jobs that wait or run, by the names that they were submitted with, in Slurm's words.

    Args:
        system: "lsf", "pbs" or "flux".
        jobs: folder of the logs, by name.

    Raises:
        UsageError: the batch system does not answer.
    """
    now = {name: _continued(name, logs) for name, logs in jobs.items()}
    found = _executors().states(system, list(now.values()), next(iter(jobs.values())) / "psij") if jobs else {}
    names = {name: found[later].name for name, later in now.items() if later in found}
    return {name: SLURM_STATES[state] for name, state in names.items() if state in SLURM_STATES}


def cancel_portable(system: str, jobs: Mapping[str, Path]) -> None:
    """Take jobs out of the queue, and end those that run.

    Args:
        system: "lsf", "pbs" or "flux".
        jobs: folder of the logs, by name.

    Raises:
        UsageError: the batch system refuses.
    """
    for name, logs in jobs.items():
        _executors().cancel_job(system, _continued(name, logs), logs / "psij")


def _cancelled(system: str, jobs: Sequence[str], logs: Path) -> str:
    """Cancel what has been submitted, and say what is left."""
    try:
        cancel_portable(system, dict.fromkeys(jobs, logs))
    except HpculeError as refusal:
        return f"cancel what is in the queue yourself: {' '.join(jobs)} ({refusal})"
    return "nothing is left in the queue"


def _continued(name: str, logs: Path) -> str:
    """The name of the job that continues one that was submitted again by itself, or its own."""
    while (later := logs / f"{name}.next").exists():
        name = later.read_text()
    return name


def _jobs(batch: CommandBatch, submission: Submission, ids: Ids) -> Iterator[PortableJob]:
    wanted = submission.site.resources(batch.stage, batch.workers)
    for index, arguments in enumerate(batch.commands):
        name = f"hpcule-{batch.name}-{index}"
        path = submission.logs / f"{name}.sh"
        yield PortableJob(name, arguments, wanted, _after(batch.after, index, ids), path)


def _after(after: str, index: int, ids: Ids) -> dict[str, list[str]]:
    """Jobs that task `index` of a batch waits for, from what would be sbatch's dependency for the whole array."""
    kind, *names = after.split(":")
    found: list[str] = []
    for name in names:
        batch = re.fullmatch(r"\{(.+)\}(?:_(\d+))?", name)
        if batch is None:  # a job of an earlier submission: its name, and the number of its only task
            found.append(re.sub(r"_\d+$", "", name))
        elif batch[2] or kind == "aftercorr":
            found.append(ids[batch[1]][int(batch[2] or index)])
        else:
            found += ids[batch[1]]
    return {"any" if kind == "afterany" else "ok": found} if found else {}


def _script(job: PortableJob, submission: Submission) -> str:
    container = submission.site.container
    python = python_words(container, submission) if container else shlex.quote(sys.executable)
    return script(job, submission.site, python, environment_lines(submission))


def _executors() -> ModuleType:
    try:
        from hpcule.jobs import psij_executors
    except ImportError:
        raise UsageError('submitting to LSF, PBS and Flux needs PSI/J: pip install "hpcule[psij]"') from None
    return psij_executors
