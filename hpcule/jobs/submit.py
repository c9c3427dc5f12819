"""Batches of commands as job arrays through submitit, each batch after the one before it."""

from __future__ import annotations

import os
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcule.config.errors import StoreError, UsageError
from hpcule.jobs.command import Command
from hpcule.jobs.site import SiteConfig, check_partition
from hpcule.store.files import private_directory

if TYPE_CHECKING:
    from submitit import SlurmExecutor

PACKAGE = Path(__file__).parents[1]


@dataclass(frozen=True)
class CommandBatch:
    """Commands that may run at the same time; `joint` ones take all ranks of the site's job, others one."""

    name: str
    commands: list[list[str]]
    joint: bool


def submit_batches(batches: list[CommandBatch], site: SiteConfig, folder: Path, *, dry_run: bool) -> list[str]:
    """Submit the batches that have commands; returns a line for each, or the scripts of a dry run.

    The package is copied to folder/code first, and the jobs run that copy: what is edited meanwhile changes nothing.

    Raises:
        UsageError: submitit is missing, Slurm does not answer or refuses, or the site names an unknown partition.
    """
    try:
        import submitit
    except ImportError:
        raise UsageError('submitting needs submitit: pip install "hpcule[slurm]"') from None
    wanted = [batch for batch in batches if batch.commands]
    if not dry_run:
        check_partition(site)
        _snapshot(folder)
    lines, before = [], ""
    for batch in wanted:
        executor = (_drafting() if dry_run else submitit.SlurmExecutor)(folder=folder / "logs")
        executor.update_parameters(**_parameters(batch, site, folder, before))
        if dry_run:
            before = f"ID-OF-{batch.name.upper()}"
            lines.append(executor._make_submission_file_text(f"... hpcule {' '.join(batch.commands[0])}", batch.name))
            continue
        jobs = _submit(executor, batch)
        before = jobs[0].job_id.split("_")[0]
        lines.append(f"{batch.name}: job {before}, {len(jobs)} of them, at most {site.at_once} at once")
    return lines


def _drafting() -> type[Any]:
    """submitit's executor for scripts alone, which also a machine without Slurm can write."""
    import submitit

    class Drafting(submitit.SlurmExecutor):
        @classmethod
        def affinity(cls) -> int:
            return 1

    return Drafting


def _submit(executor: SlurmExecutor, batch: CommandBatch) -> list[Any]:
    from submitit.core.utils import FailedJobError
    from submitit.helpers import clean_env

    try:
        # What Slurm set for a job that submits is not for the jobs that it submits; where Slurm is, is.
        cluster = {name: os.environ[name] for name in ("SLURM_CONF",) if name in os.environ}
        with clean_env(), executor.batch():
            os.environ.update(cluster)
            return [executor.submit(Command(command)) for command in batch.commands]
    except FailedJobError as error:
        raise UsageError(f"sbatch refused {batch.name}: {str(error).strip().splitlines()[-1]}") from None


def _parameters(batch: CommandBatch, site: SiteConfig, folder: Path, before: str) -> dict[str, object]:
    """submitit's names for what the site says."""
    parameters: dict[str, object] = {
        "job_name": f"hpcule-{batch.name}",
        "time": site.minutes,
        "nodes": site.nodes if batch.joint else 1,
        "ntasks_per_node": site.tasks_per_node if batch.joint else 1,
        "cpus_per_task": site.cpus_per_task,
        "signal_delay_s": site.signal_seconds,
        "array_parallelism": site.at_once,
        "srun_args": ["--kill-on-bad-exit=1"],
        "setup": [*_environment(site, folder), *site.setup],
        "additional_parameters": {"requeue": True, **site.sbatch},
    }
    if site.gpus_per_node:
        # All tasks of a node see all its GPUs and choose by their local rank.
        parameters["gpus_per_node"] = site.gpus_per_node if batch.joint else 1
    if site.memory_gigabytes:
        parameters["mem"] = f"{site.memory_gigabytes}GB"
    if before:
        parameters["dependency"] = f"afterany:{before}"
    return parameters | {name: value for name in ("partition", "account") if (value := getattr(site, name))}


def _environment(site: SiteConfig, folder: Path) -> list[str]:
    lines = [f"export PYTHONPATH={shlex.quote(str((folder / 'code').resolve()))}", "export PYTHONSAFEPATH=1"]
    if site.network_interface:
        name = shlex.quote(site.network_interface)
        lines.append(f"export GLOO_SOCKET_IFNAME={name} NCCL_SOCKET_IFNAME={name}")
    return lines


def _snapshot(folder: Path) -> None:
    # Job files hold the whole command, and perhaps a seed in it.
    private_directory(folder)
    target = folder / "code" / PACKAGE.name
    if target.exists():  # jobs of an earlier submission may still run it
        return
    try:
        shutil.copytree(PACKAGE, target, ignore=shutil.ignore_patterns("__pycache__"))
    except OSError as error:
        raise StoreError(f"cannot copy the package to {target}: {error.strerror or error}") from None
