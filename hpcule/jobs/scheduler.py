"""What Slurm says: limits, partitions, the queue. Every question is one command."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from hpcule.config.errors import UsageError
from hpcule.config.tree import unknown
from hpcule.jobs.site import DEFAULT_MINUTES, SiteConfig, Stage

USUAL_ARRAY_SIZE = 1001
"""MaxArraySize of Slurm unless a site sets another."""
STAGES: tuple[Stage, ...] = ("craft", "victim", "report")


@dataclass(frozen=True)
class Limits:
    """How much Slurm takes.

    Attributes:
        array: number of tasks of one array.
        jobs: number of jobs that may still be submitted, each task of an array counting as one; None: no limit known.
    """

    array: int = USUAL_ARRAY_SIZE
    jobs: int | None = None


@dataclass(frozen=True)
class SlurmPartition:
    """One partition; None is no limit.

    Attributes:
        name: of the partition.
        is_default: whether jobs that name no partition go there.
        is_up: whether jobs start there.
        is_exclusive: whether every job gets whole nodes.
        nodes: most nodes of a job.
        minutes: longest time limit.
        cpus: most cores of a node.
        megabytes: most memory of a node.
        gpus: most GPUs of a node.
        features: of its nodes.
    """

    name: str
    is_default: bool
    is_up: bool
    is_exclusive: bool
    nodes: int
    minutes: int | None
    cpus: int
    megabytes: int
    gpus: int
    features: frozenset[str]


def ask(*words: str) -> str:
    """What a command of Slurm prints.

    Raises:
        UsageError: the command is missing, fails, or does not answer within a minute.
    """
    try:
        asked = subprocess.run(words, capture_output=True, text=True, timeout=60)
    except FileNotFoundError:
        raise UsageError(f"there is no {words[0]} on this machine: use a login node of the cluster") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UsageError(f"Slurm does not answer: {error}") from None
    if asked.returncode:
        said = asked.stderr.strip() or f"{words[0]} failed"
        raise UsageError(f"Slurm does not answer: {said.splitlines()[0]}")
    return asked.stdout


def facts_of(line: str) -> dict[str, str]:
    """The facts in a line of `scontrol --oneliner show`, by name."""
    return dict(word.split("=", 1) for word in line.split() if "=" in word)


def is_here() -> bool:
    """Whether this machine has the commands of Slurm."""
    return shutil.which("sbatch") is not None


def queue() -> dict[str, str]:
    """State of every job of this user that waits or runs, by name: `12_3` is task 3 of array 12."""
    shown = ask("squeue", "--noheader", "--array", "--states=all", f"--user={os.geteuid()}", "--format=%i|%T")
    states = dict(line.strip().split("|") for line in shown.splitlines() if line.count("|") == 1)
    return {job: state for job, state in states.items() if state in _ALIVE}


_ALIVE = {
    *("PENDING", "RUNNING", "COMPLETING", "CONFIGURING", "SUSPENDED", "STOPPED", "STAGE_OUT", "SIGNALING", "RESIZING"),
    *("REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD"),
}
"""States of jobs that run or will."""


def cancel(jobs: Sequence[str]) -> None:
    """Take jobs out of the queue, and end those that run.

    Raises:
        UsageError: Slurm refuses.
    """
    if jobs:
        ask("scancel", *jobs)


def job_limits(site: SiteConfig) -> Limits:
    """Limits of this cluster and, where Slurm keeps accounts, of this user's jobs at this site."""
    config = ask("scontrol", "show", "config")
    found = {name: int(value) for name, value in re.findall(r"^(MaxArraySize|MaxJobCount)\s*=\s*(\d+)", config, re.M)}
    most = [found["MaxJobCount"]] if "MaxJobCount" in found else []
    associations = [each for each in _associations() if site.account in (None, each.account)]
    # A user with several accounts: the widest, as the job may be charged to any.
    for limits in ([each.jobs for each in associations], [_jobs_of_qos(site.qos or each.qos) for each in associations]):
        known = [limit for limit in limits if limit is not None]
        most += [max(known)] if known and len(known) == len(limits) else []
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


def _jobs_of_qos(qos: str) -> int | None:
    """Number of jobs that a user may submit with a quality of service; None: no limit."""
    found = _accounting("qos", "where", f"name={qos}", "format=MaxSubmitJobsPerUser") if qos else []
    return int(found[0]) if found and found[0].isdigit() else None


def _accounting(*words: str) -> list[str]:
    """What `sacctmgr show` says, line by line; nothing without accounting."""
    try:
        return ask("sacctmgr", "--noheader", "--parsable2", "show", *words).splitlines()
    except UsageError:
        return []


def partitions() -> list[SlurmPartition]:
    """All partitions, in the order of Slurm."""
    nodes = _nodes_of_partitions()
    found = []
    for line in ask("scontrol", "--oneliner", "show", "partition").splitlines():
        facts = facts_of(line)
        if "PartitionName" in facts:
            found.append(_partition(facts, nodes.get(facts["PartitionName"], [])))
    return found


def _nodes_of_partitions() -> dict[str, list[list[str]]]:
    """Cores, megabytes, GPUs and features of the nodes of each partition."""
    shown = ask("sinfo", "--noheader", "--format=%R|%c|%m|%G|%f")
    found: dict[str, list[list[str]]] = {}
    for line in shown.splitlines():
        name, *facts = line.strip().split("|")
        found.setdefault(name, []).append(facts)
    return found


def _partition(facts: dict[str, str], nodes: list[list[str]]) -> SlurmPartition:
    most, total = facts.get("MaxNodes", ""), int(facts.get("TotalNodes", "0"))
    features = {name for _, _, _, names in nodes for name in names.split(",") if name != "(null)"}
    return SlurmPartition(
        facts["PartitionName"],
        is_default=facts.get("Default") == "YES",
        is_up=facts.get("State", "UP") == "UP",
        is_exclusive=facts.get("OverSubscribe") == "EXCLUSIVE",
        nodes=min(total, int(most)) if most.isdigit() else total,
        minutes=minutes_of(facts.get("MaxTime", "UNLIMITED")),
        cpus=max((_number(cpus) for cpus, *_ in nodes), default=0),
        megabytes=max((_number(megabytes) for _, megabytes, *_ in nodes), default=0),
        gpus=max((_gpus(resources) for _, _, resources, _ in nodes), default=0),
        features=frozenset(features),
    )


def _number(text: str) -> int:
    """sinfo writes `64+` where nodes differ."""
    found = re.match(r"\d+", text)
    return int(found.group()) if found else 0


def _gpus(resources: str) -> int:
    """GPUs of a node from its generic resources, such as `gpu:a100:4(S:0-1),shard:8`."""
    return sum(int(count or 1) for count in re.findall(r"\bgpu(?::[^:,(]+)?(?::(\d+))?(?=[,(]|$)", resources))


def minutes_of(limit: str) -> int | None:
    """Minutes of one of Slurm's time limits: `UNLIMITED`, `30:00`, `12:00:00` or `7-00:00:00`."""
    found = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", limit)
    if not found:
        return None
    days, hours, minutes, _ = (int(part or 0) for part in found.groups())
    return (days * 24 + hours) * 60 + minutes


def check_site(site: SiteConfig) -> None:
    """Compare a site with Slurm's partitions before anything is submitted.

    Raises:
        UsageError: Slurm does not answer, or a job of the site could never start.
    """
    if not is_here():
        raise UsageError("there is no sbatch on this machine: submit from a login node of the cluster")
    known = partitions()
    for stage in STAGES:
        name, chosen = site.resources(stage).partition, _chosen(site, stage, known)
        if name is not None and chosen is None:
            raise UsageError(unknown("partition", name, sorted(partition.name for partition in known)))
        if chosen is not None:
            _check_stage(site, stage, chosen)


def longest_minutes(site: SiteConfig) -> dict[Stage, int | None]:
    """Longest time limit of the jobs of each stage; None: no limit."""
    known = partitions()
    chosen = {stage: _chosen(site, stage, known) for stage in STAGES}
    return {stage: partition.minutes if partition else None for stage, partition in chosen.items()}


def _chosen(site: SiteConfig, stage: Stage, known: Sequence[SlurmPartition]) -> SlurmPartition | None:
    """The partition of a stage's jobs; None if there is none of its name, or no default."""
    name = site.resources(stage).partition
    return next((found for found in known if (found.is_default if name is None else found.name == name)), None)


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
