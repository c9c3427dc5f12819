"""What Slurm allows a user: how many jobs at a time, and how large each may be."""

from __future__ import annotations

import os
import pwd
import re
from dataclasses import dataclass

from hpcule.config.errors import UsageError
from hpcule.config.tree import unknown
from hpcule.jobs.scheduler import STAGES, SlurmPartition, ask, is_here, minutes_of, partition_of, partitions, queue
from hpcule.jobs.site import DEFAULT_MINUTES, SiteConfig, Stage
from hpcule.jobs.usage import bytes_of

USUAL_ARRAY_SIZE = 1001
"""MaxArraySize of Slurm unless a site sets another."""


@dataclass(frozen=True)
class Limits:
    """How much Slurm takes.

    Attributes:
        array: number of tasks of one array.
        jobs: number of jobs that may still be submitted, each task of an array counting as one; None: no limit known.
    """

    array: int = USUAL_ARRAY_SIZE
    jobs: int | None = None


def job_limits(site: SiteConfig) -> Limits:
    """Limits of this cluster and, where Slurm keeps accounts, of this user's jobs at this site.

    The lowest of them counts, although Slurm passes over some where others are set, and jobs of other partitions count,
    too: what is left out for this reason can be submitted later, while a refusal would leave the study without jobs.
    MaxJobsPerUser is none of them, as jobs beyond it may be submitted and wait.
    """
    config = ask("scontrol", "show", "config")
    found = {name: int(value) for name, value in re.findall(r"^(MaxArraySize|MaxJobCount)\s*=\s*(\d+)", config, re.M)}
    most = [found["MaxJobCount"]] if "MaxJobCount" in found else []
    associations = [each for each in _associations() if site.account in (None, each.account)]
    # A user with several accounts: the widest, as the job may be charged to any.
    for limits in (
        [each.jobs for each in associations],
        [_quality(site.qos or each.qos).jobs for each in associations],
    ):
        known = [limit for limit in limits if limit is not None]
        most += [max(known)] if known and len(known) == len(limits) else []
    most += [jobs for name in _qualities_of_partitions(site) if (jobs := _quality(name).jobs) is not None]
    room = max(0, min(most) - len(queue())) if most else None
    return Limits(found.get("MaxArraySize", USUAL_ARRAY_SIZE), room)


def accounts() -> list[str]:
    """Accounts that the user's jobs may be charged to, sorted; empty without accounting."""
    return sorted({each.account for each in _associations()})


@dataclass(frozen=True)
class _Association:
    """A user's account, its MaxSubmitJobs (None: no limit), and its default quality of service."""

    account: str
    jobs: int | None
    qos: str


def _associations() -> list[_Association]:
    """The user's accounts; without accounting, there are none."""
    user = pwd.getpwuid(os.geteuid()).pw_name
    lines = _accounting("assoc", f"user={user}", "format=Account,MaxSubmitJobs,DefaultQOS")
    return [
        _Association(account, int(jobs) if jobs.isdigit() else None, qos)
        for account, jobs, qos in (line.split("|") for line in lines if line.count("|") == 2)
    ]


@dataclass(frozen=True)
class _Quality:
    """Limits of a quality of service.

    Attributes:
        jobs: number of jobs that a user may have in the queue; None: no limit.
        minutes: longest time limit; None: no limit.
        resources: most that a job may have, as Slurm writes it: (`cpu`, `64`) or (`mem`, `300G`).
        goes_first: whether its limits hold, and not those of a partition's own quality of service.
    """

    jobs: int | None = None
    minutes: int | None = None
    resources: tuple[tuple[str, str], ...] = ()
    goes_first: bool = False


def _quality(name: str) -> _Quality:
    """Limits of a quality of service; none without accounting, or without a name."""
    wanted = "format=MaxSubmitJobsPU,MaxWall,MaxTRES,MaxTRESPU,Flags"
    for line in _accounting("qos", "where", f"name={name}", wanted) if name else []:
        jobs, minutes, *amounts, flags = line.split("|")
        # A job alone has all that a user has.
        pairs = [pair.split("=", 1) for text in amounts for pair in text.split(",") if "=" in pair]
        return _Quality(
            jobs=int(jobs) if jobs.isdigit() else None,
            minutes=minutes_of(minutes),
            resources=tuple((resource, amount) for resource, amount in pairs),
            goes_first="OverPartQOS" in flags.split(","),
        )
    return _Quality()


def _qualities_of_partitions(site: SiteConfig) -> set[str]:
    """The partitions' own qualities of service, for crafts and victims: there is never more than one report."""
    known = partitions()
    stages: tuple[Stage, ...] = ("craft", "victim")
    return {chosen.qos for stage in stages if (chosen := partition_of(site, stage, known)) is not None and chosen.qos}


def _accounting(*words: str) -> list[str]:
    """What `sacctmgr show` says, line by line; nothing without accounting."""
    try:
        return ask("sacctmgr", "--noheader", "--parsable2", "show", *words).splitlines()
    except UsageError:
        return []


def check_site(site: SiteConfig) -> None:
    """Compare a site with Slurm's partitions before anything is submitted.

    Raises:
        UsageError: Slurm does not answer, or a job of the site could never start.
    """
    if not is_here():
        raise UsageError("there is no sbatch on this machine: submit from a login node of the cluster")
    known = partitions()
    for stage in STAGES:
        name, chosen = site.resources(stage).partition, partition_of(site, stage, known)
        if name is not None and chosen is None:
            raise UsageError(unknown("partition", name, sorted(partition.name for partition in known)))
        if chosen is not None:
            _check_stage(site, stage, chosen)
            _check_quality(site, stage, chosen)


def _check_stage(site: SiteConfig, stage: Stage, partition: SlurmPartition) -> None:
    wanted = site.resources(stage)
    megabytes = 1024 * wanted.memory_gigabytes if wanted.memory_gigabytes else None
    if not partition.is_up:
        raise UsageError(f"partition {partition.name} is not up: Slurm starts no jobs there")
    for what, asked, most in (
        ("nodes", wanted.nodes, partition.nodes),
        ("minutes", wanted.minutes or DEFAULT_MINUTES, partition.minutes),
        ("tasks_per_node x cpus_per_task", wanted.tasks_per_node * wanted.cpus_per_task, partition.cpus),
        ("gpus_per_node", wanted.gpus_per_node, partition.gpus),
        ("memory_gigabytes in megabytes", megabytes, partition.megabytes),
    ):
        if asked is not None and most is not None and asked > most:
            raise UsageError(f"{stage} jobs: {what}={asked}, but partition {partition.name} has at most {most}")
    if site.constraint and re.fullmatch(r"\w+", site.constraint) and site.constraint not in partition.features:
        raise UsageError(unknown(f"feature of partition {partition.name}", site.constraint, sorted(partition.features)))


def _check_quality(site: SiteConfig, stage: Stage, partition: SlurmPartition) -> None:
    """Compare a stage's jobs with the limits of their partition's own quality of service."""
    quality = _quality(partition.qos)
    if site.qos and _quality(site.qos).goes_first:
        return
    wanted = site.resources(stage)
    asked = {
        "cpu": wanted.ranks * wanted.cpus_per_task,
        "node": wanted.nodes,
        "gres/gpu": wanted.nodes * wanted.gpus_per_node,
        "mem": wanted.nodes * (wanted.memory_gigabytes or 0) * 2**30,
    }
    allowed = f"but the quality of service {partition.qos} of partition {partition.name} allows at most"
    for resource, most in quality.resources:
        if asked.get(resource, 0) > bytes_of(most):
            shown = f"{asked[resource] // 2**30}G" if resource == "mem" else asked[resource]
            raise UsageError(f"{stage} jobs: {resource}={shown}, {allowed} {most}")
    minutes = wanted.minutes or DEFAULT_MINUTES
    if quality.minutes is not None and minutes > quality.minutes:
        raise UsageError(f"{stage} jobs: minutes={minutes}, {allowed} {quality.minutes}")
