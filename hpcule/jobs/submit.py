"""Batches of commands as job arrays, with what each waits for; all of them are submitted, or none."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from hpcule.config.errors import HpculeError, UsageError, first_line
from hpcule.jobs.code_copy import code_copy, is_current, make_copy
from hpcule.jobs.command import Command
from hpcule.jobs.scheduler import cancel
from hpcule.jobs.site import DEFAULT_MINUTES, ContainerConfig, SiteConfig, Stage
from hpcule.store.files import private_directory

if TYPE_CHECKING:
    from hpcule.jobs.executor import ArrayExecutor


@dataclass(frozen=True)
class CommandBatch:
    """Commands that become the tasks of one array.

    Attributes:
        name: of the batch, unlike all others of a submission.
        stage: whose resources each task takes.
        workers: ranks that train a victim jointly.
        commands: arguments of hpcule.
        after: the dependency for sbatch, with the names of earlier batches in braces: `afterok:{craft}_3`.
        items: what each task does, by the keys of a study.
    """

    name: str
    stage: Stage
    commands: Sequence[Sequence[str]]
    after: str = ""
    items: Sequence[Sequence[str]] = field(default_factory=tuple)
    workers: int = 1

    @property
    def tasks(self) -> int:
        """Number of tasks of the array."""
        return len(self.commands)


@dataclass(frozen=True)
class Submission:
    """Where and how a set of batches is submitted."""

    site: SiteConfig
    folder: Path
    """Private folder of logs, scripts and code."""
    refresh_code: bool = False
    """Whether jobs run a new copy of the package."""

    @property
    def code(self) -> Path:
        """Folder of the copy of the package that jobs run."""
        return code_copy(self.folder.absolute() / "code", refresh=self.refresh_code)

    @property
    def logs(self) -> Path:
        """Folder of logs and scripts."""
        return Path(self.site.log_folder or self.folder / "logs").expanduser().absolute()


def scripts(batches: Sequence[CommandBatch], submission: Submission) -> Iterator[str]:
    """For each batch a line with the call of sbatch, and the script that it gets, byte for byte.

    Numbers of jobs that are not known yet are written ID-OF-BATCH.
    """
    ids = {batch.name: f"ID-OF-{batch.name.upper()}" for batch in batches}
    for batch in batches:
        executor = _executor(batch, submission)
        call = shlex.join(["sbatch", *_options(batch, ids), "SCRIPT"])
        yield f"# {batch.name}: {call}\n# task 0: hpcule {shlex.join(batch.commands[0])}"
        yield executor.script(batch.tasks)


def submit_batches(
    batches: Sequence[CommandBatch], submission: Submission, note: Callable[[CommandBatch, str], None]
) -> list[str]:
    """Submit the batches in their order; returns a line for each.

    Args:
        batches: of which later ones may wait for earlier ones.
        submission: where and how.
        note: called with each batch and the number of its array as soon as there is one.

    Raises:
        UsageError: submitit is missing, or sbatch refuses a batch; then those before it are cancelled.
    """
    executors = [_executor(batch, submission) for batch in batches]
    code = submission.code
    for folder in (submission.folder, submission.logs):
        private_directory(folder)  # Scripts and commands may hold a seed.
    make_copy(code)
    ids: dict[str, str] = {}
    lines = []
    for batch, executor in zip(batches, executors, strict=True):
        with _all_or_none(ids, batch):
            job = ids[batch.name] = _submit(executor, batch, _options(batch, ids))
            note(batch, job)
        at_once = min(submission.site.at_once, batch.tasks)
        lines.append(f"{batch.name}: job {job}, {batch.tasks} task(s), at most {at_once} at once")
    if not is_current(code):
        lines.append(f"the code is the copy in {code}, which differs from the package: --refresh-code takes a new copy")
    return lines


@contextmanager
def _all_or_none(ids: dict[str, str], batch: CommandBatch) -> Iterator[None]:
    """Cancel what has been submitted where this batch cannot be."""
    try:
        yield
    except BaseException as error:
        before = list(ids.values())
        try:
            cancel(before)
            rest = "nothing is left in the queue"
        except HpculeError as refusal:
            rest = f"cancel what is in the queue yourself: scancel {' '.join(before)} ({refusal})"
        if isinstance(error, UsageError):
            raise UsageError(f"{error}; {rest}") from None
        if before:
            print(f"hpcule: {batch.name} was not submitted; {rest}", file=sys.stderr)
        raise


def _executor(batch: CommandBatch, submission: Submission) -> ArrayExecutor:
    try:
        from hpcule.jobs.executor import ArrayExecutor
    except ImportError:
        raise UsageError('submitting needs submitit: pip install "hpcule[slurm]"') from None
    container = submission.site.container
    executor = ArrayExecutor(folder=submission.logs, python=python_words(container, submission) if container else None)
    executor.login_shell = submission.site.login_shell
    executor.update_parameters(**_parameters(batch, submission))
    return executor


def _submit(executor: ArrayExecutor, batch: CommandBatch, options: Sequence[str]) -> str:
    from submitit.core.utils import FailedJobError
    from submitit.helpers import clean_env

    try:
        # What Slurm set for a job that submits is not for the jobs that it submits; where Slurm is, is.
        cluster = {name: os.environ[name] for name in ("SLURM_CONF",) if name in os.environ}
        with clean_env():
            os.environ.update(cluster)
            return executor.submit_tasks([Command(list(command)) for command in batch.commands], options)
    except FailedJobError as error:
        raise UsageError(f"sbatch refused {batch.name}: {str(error).strip().splitlines()[-1]}") from None
    except OSError as error:
        raise UsageError(f"{batch.name} cannot be submitted: {first_line(error)}") from None


def _options(batch: CommandBatch, ids: dict[str, str]) -> list[str]:
    return [f"--dependency={batch.after.format_map(ids)}"] if batch.after else []


def _parameters(batch: CommandBatch, submission: Submission) -> dict[str, object]:
    """submitit's names for what the site says."""
    site, wanted = submission.site, submission.site.resources(batch.stage, batch.workers)
    own = {
        "requeue": True,
        # A task whose craft has failed would wait for ever.
        "kill-on-invalid-dep": "yes",
        "chdir": str(Path.cwd()),
        "reservation": site.reservation,
        **wanted.sbatch,
    }
    parameters: dict[str, object] = {
        "job_name": f"hpcule-{batch.name}",
        "wckey": None,
        "time": wanted.minutes or DEFAULT_MINUTES,
        "nodes": wanted.nodes,
        "ntasks_per_node": wanted.tasks_per_node,
        "cpus_per_task": wanted.cpus_per_task,
        # All tasks of a node see all its GPUs and choose by their local rank.
        "gpus_per_node": wanted.gpus_per_node or None,
        "mem": f"{wanted.memory_gigabytes}GB" if wanted.memory_gigabytes else None,
        "partition": wanted.partition,
        "account": site.account,
        "qos": site.qos,
        "constraint": site.constraint,
        "signal_delay_s": site.signal_seconds,
        "array_parallelism": site.at_once,
        "srun_args": _srun_arguments(submission, wanted.cpus_per_task),
        "setup": [*environment_lines(submission), *site.setup],
        "additional_parameters": {name: value for name, value in own.items() if value is not None},
    }
    return parameters


def _srun_arguments(submission: Submission, cpus_per_task: int) -> list[str]:
    # A rank that ends first must not kill those that still save. Since Slurm 22.05, srun does not take the number of
    # cores from sbatch.
    words = ["--kill-on-bad-exit=0", "--wait=60", f"--cpus-per-task={cpus_per_task}"]
    container = submission.site.container
    if container and container.runtime == "pyxis":
        mounts = ",".join(path if ":" in path else f"{path}:{path}" for path in _bound(container, submission))
        words += [f"--container-image={container.image}", f"--container-mounts={mounts}"]
    return [*words, *submission.site.srun_args]


def python_words(container: ContainerConfig, submission: Submission) -> str:
    """The shell words that start Python inside of a container."""
    if container.runtime == "pyxis":
        return container.python
    gpus = ["--nv"] if submission.site.gpus_per_node else []
    binds = ["--bind", ",".join(_bound(container, submission))]
    return shlex.join(["apptainer", "exec", *gpus, *binds, container.image, container.python])


def _bound(container: ContainerConfig, submission: Submission) -> list[str]:
    folders = [Path.cwd(), submission.folder.absolute(), submission.logs, *map(Path, container.binds)]
    return list(dict.fromkeys(map(str, folders)))


def environment_lines(submission: Submission) -> list[str]:
    """Shell lines that export what the code and the network of a job need."""
    site = submission.site
    lines = [f"export PYTHONPATH={shlex.quote(str(submission.code))}", "export PYTHONSAFEPATH=1"]
    interfaces = {
        "GLOO_SOCKET_IFNAME": site.gloo_interface or site.network_interface,
        "NCCL_SOCKET_IFNAME": site.nccl_interface or site.network_interface,
    }
    named = [f"{variable}={shlex.quote(name)}" for variable, name in interfaces.items() if name]
    return [*lines, f"export {' '.join(named)}"] if named else lines
