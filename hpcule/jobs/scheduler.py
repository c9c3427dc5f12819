"""What Slurm says: its partitions and the queue. Every question is one command."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from hpcule.config.errors import UsageError
from hpcule.jobs.site import SiteConfig, Stage

STAGES: tuple[Stage, ...] = ("craft", "victim", "report")


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
        qos: quality of service whose limits all its jobs have; "": none.
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
    qos: str


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
        qos="" if facts.get("QoS", "N/A") == "N/A" else facts["QoS"],
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


def longest_minutes(site: SiteConfig) -> dict[Stage, int | None]:
    """Longest time limit of the jobs of each stage; None: no limit."""
    known = partitions()
    chosen = {stage: partition_of(site, stage, known) for stage in STAGES}
    return {stage: partition.minutes if partition else None for stage, partition in chosen.items()}


def partition_of(site: SiteConfig, stage: Stage, known: Sequence[SlurmPartition]) -> SlurmPartition | None:
    """The one of these partitions where a stage's jobs go; None if there is none of its name, or no default."""
    name = site.resources(stage).partition
    return next((found for found in known if (found.is_default if name is None else found.name == name)), None)
