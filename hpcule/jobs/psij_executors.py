"""PSI/J's executors for LSF and PBS, and one for Flux, which submit scripts of ours.

What PSI/J 0.9 lacks is added here: scripts of one's own with cores, GPUs and dependencies, `bsub` that reads a script
from its input (as every LSF does, with or without LSB_BSUB_PARSE_SCRIPT), states of LSF jobs that end with a reason,
and Flux through its command, as PSI/J's own executor needs Flux's Python bindings, which few environments have.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Collection
from pathlib import Path
from typing import IO

from psij import Job, JobAttributes, JobSpec, JobState, JobStatus, SubmitException
from psij.executors.batch.batch_scheduler_executor import (
    BatchSchedulerExecutor,
    BatchSchedulerExecutorConfig,
    InvalidJobStateError,
)
from psij.executors.batch.lsf import LsfExecutorConfig, LsfJobExecutor
from psij.executors.batch.pbs import PBSJobExecutor
from psij.executors.batch.pbs_base import PBSExecutorConfig

from hpcule.config.errors import UsageError, first_line

SCRIPT = "script"
"""PSI/J's custom attribute of a job that holds the text of its script."""
NEVER = 10**9
"""Seconds until PSI/J's thread asks for states by itself: a command that submits does not stay to see them."""
FLUX_STATES = {
    **dict.fromkeys(("DEPEND", "PRIORITY", "SCHED"), JobState.QUEUED),
    **dict.fromkeys(("RUN", "CLEANUP"), JobState.ACTIVE),
    "COMPLETED": JobState.COMPLETED,
    "CANCELED": JobState.CANCELED,
    **dict.fromkeys(("FAILED", "TIMEOUT"), JobState.FAILED),
}
"""States and, once inactive, results of `flux jobs`, in PSI/J's words."""


class Lsf(LsfJobExecutor):
    """Jobs of LSF: bsub, bjobs and bkill."""

    _NAME_ = "lsf"

    def __init__(self, folder: Path) -> None:
        """Keep what PSI/J writes in a folder."""
        super().__init__(
            None, LsfExecutorConfig(work_directory=folder, initial_queue_polling_delay=NEVER, keep_files=True)
        )

    def generate_submit_script(self, job: Job, context: dict[str, object], submit_file: IO[str]) -> None:
        """Write our script."""
        submit_file.write(script_of(job))

    def get_submit_command(self, job: Job, submit_file_path: Path) -> list[str]:
        """The script goes to bsub's input: given as an argument, it is read for options at some sites only."""
        return ["sh", "-c", 'exec bsub < "$1"', "sh", str(submit_file_path)]

    def parse_status_output(self, exit_code: int, out: str) -> dict[str, JobStatus]:
        """States by number; PSI/J's own looks a reason up by a name that bjobs does not use."""
        records = [entry for entry in json.loads(out)["RECORDS"] if "ERROR" not in entry]
        return {entry["JOBID"]: JobStatus(self._STATE_MAP[entry["STAT"]]) for entry in records}


class Pbs(PBSJobExecutor):
    """Jobs of PBS Pro and OpenPBS: qsub, qstat and qdel."""

    _NAME_ = "pbs"

    def __init__(self, folder: Path) -> None:
        """Keep what PSI/J writes in a folder."""
        super().__init__(
            None, PBSExecutorConfig(work_directory=folder, initial_queue_polling_delay=NEVER, keep_files=True)
        )

    def generate_submit_script(self, job: Job, context: dict[str, object], submit_file: IO[str]) -> None:
        """Write our script."""
        submit_file.write(script_of(job))

    def process_cancel_command_output(self, exit_code: int, out: str) -> None:
        """A job that has ended already need not be cancelled; PSI/J's own takes that for an error."""
        if "has finished" in out or "Unknown Job Id" in out:
            raise InvalidJobStateError
        super().process_cancel_command_output(exit_code, out)


class Flux(BatchSchedulerExecutor):
    """Jobs of Flux: flux batch, flux jobs and flux cancel."""

    _NAME_ = "flux"

    def __init__(self, folder: Path) -> None:
        """Keep what PSI/J writes in a folder."""
        super().__init__(
            config=BatchSchedulerExecutorConfig(
                work_directory=folder, initial_queue_polling_delay=NEVER, keep_files=True
            )
        )

    def generate_submit_script(self, job: Job, context: dict[str, object], submit_file: IO[str]) -> None:
        """Write our script."""
        submit_file.write(script_of(job))

    def get_submit_command(self, job: Job, submit_file_path: Path) -> list[str]:
        """flux batch reads its options from the script."""
        return ["flux", "batch", str(submit_file_path)]

    def job_id_from_submit_output(self, out: str) -> str:
        """The name that flux batch prints."""
        return out.strip().split()[-1]

    def get_cancel_command(self, native_id: str) -> list[str]:
        """flux cancel takes names as flux batch prints them."""
        return ["flux", "cancel", native_id]

    def process_cancel_command_output(self, exit_code: int, out: str) -> None:
        """A job that has ended already need not be cancelled."""
        if "inactive" in out:
            raise InvalidJobStateError
        raise SubmitException(out)

    def get_status_command(self, native_ids: Collection[str]) -> list[str]:
        """A line for each job, with a result once it is inactive."""
        return ["flux", "jobs", "--suppress-header", "--format={id.f58}|{state}|{result}", *native_ids]

    def parse_status_output(self, exit_code: int, out: str) -> dict[str, JobStatus]:
        """States by name."""
        lines = [line.split("|") for line in out.splitlines() if line.count("|") == 2]
        return {name: JobStatus(FLUX_STATES[result if state == "INACTIVE" else state]) for name, state, result in lines}

    def get_list_command(self) -> list[str]:
        """Names of this user's jobs that wait or run."""
        return ["flux", "jobs", "--suppress-header", "--format={id.f58}"]


EXECUTORS: dict[str, Callable[[Path], BatchSchedulerExecutor]] = {"lsf": Lsf, "pbs": Pbs, "flux": Flux}


def script_of(job: Job) -> str:
    """The script that a job was made with."""
    assert job.spec is not None
    return str(job.spec.attributes.get_custom_attribute(SCRIPT))


def submit_script(system: str, name: str, script: str, folder: Path) -> str:
    """Submit a script; returns the job's name in the batch system.

    Args:
        system: "lsf", "pbs" or "flux".
        name: of the job, for PSI/J.
        script: its text.
        folder: private folder for PSI/J's files.

    Raises:
        UsageError: the command is missing or refuses.
    """
    attributes = JobAttributes(custom_attributes={SCRIPT: script})
    job = Job(JobSpec(executable="true", name=name, attributes=attributes))
    try:
        EXECUTORS[system](folder).submit(job)
    except SubmitException as error:
        said = str(error).strip().splitlines() or ["no reason given"]
        raise UsageError(f"{system} refused {name}: {said[-1]}") from None
    except OSError as error:
        raise UsageError(f"{name} cannot be submitted to {system}: {first_line(error)}") from None
    return str(job.native_id)


def states(system: str, jobs: Collection[str], folder: Path) -> dict[str, JobState]:
    """State of each of these jobs that the batch system still knows.

    Raises:
        UsageError: it does not answer.
    """
    if not jobs:
        return {}
    executor = EXECUTORS[system](folder)
    try:
        asked = subprocess.run(executor.get_status_command(jobs), capture_output=True, text=True, timeout=60)
        # Some of the jobs may be forgotten, so that the command fails although it lists the others.
        if asked.stdout.strip():
            return {job: status.state for job, status in executor.parse_status_output(0, asked.stdout).items()}
    except (OSError, ValueError, KeyError, subprocess.TimeoutExpired) as error:
        raise UsageError(f"{system} does not answer: {first_line(error)}") from None
    if asked.returncode and not _forgotten(asked.stderr):
        raise UsageError(f"{system} does not answer: {(asked.stderr.strip().splitlines() or ['no reason given'])[0]}")
    return {}


def _forgotten(said: str) -> bool:
    """Whether a system knows none of the jobs any more."""
    return any(words in said.lower() for words in ("unknown job", "not found", "no matching job"))


def cancel_job(system: str, job: str, folder: Path) -> None:
    """Cancel a job, if it has not ended.

    Raises:
        UsageError: the batch system refuses.
    """
    handle = Job(JobSpec(executable="true"))
    handle._native_id = job  # as `attach` does, without its thread
    try:
        EXECUTORS[system](folder).cancel(handle)
    except (SubmitException, OSError) as error:
        raise UsageError(f"{system} does not cancel {job}: {first_line(error)}") from None
