"""What jobs asked for and what they used, from Slurm's accounts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from hpcule.jobs.scheduler import ask

LITTLE = 0.25
"""Share of what was asked for; a stage that used less of it is pointed out."""
REMEDIES = {
    "time": "a shorter time limit (`minutes`) starts sooner",
    "cores": "ask for fewer (`cpus_per_task`), or use them (OMP_NUM_THREADS, world.threads)",
    "GPUs": "put more victims into a job (`victims_per_job`), or raise the batch",
    "memory": "ask for less (`memory_gigabytes`)",
}
_FIELDS = ("JobID", "ElapsedRaw", "TimelimitRaw", "AllocCPUS", "TotalCPU", "ReqTRES", "NTasks", "MaxRSS")
_BYTES = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclass
class StageUsage:
    """Asked and used, summed over the jobs of a stage that have run.

    Attributes:
        jobs: number of jobs.
        seconds: that they took, and that their time limits allow.
        core_seconds: in which the cores computed, and in which the jobs had them.
        gpu_seconds: the same for GPUs, where Slurm measures them.
        byte_seconds: memory times time: peak of all tasks, and what was asked for.
    """

    jobs: int = 0
    seconds: list[float] = field(default_factory=lambda: [0.0, 0.0])
    core_seconds: list[float] = field(default_factory=lambda: [0.0, 0.0])
    gpu_seconds: list[float] = field(default_factory=lambda: [0.0, 0.0])
    byte_seconds: list[float] = field(default_factory=lambda: [0.0, 0.0])

    def shares(self) -> dict[str, float | None]:
        """Used share of the time, the cores, the GPUs and the memory; None: not measured, or none asked for."""
        pairs = zip(REMEDIES, (self.seconds, self.core_seconds, self.gpu_seconds, self.byte_seconds), strict=True)
        return {name: used / asked if asked else None for name, (used, asked) in pairs}

    def add(self, job: Mapping[str, str], steps: Sequence[Mapping[str, str]]) -> None:
        """Count a job that has run, and its steps."""
        elapsed, cores = float(job["ElapsedRaw"]), int(job["AllocCPUS"] or 0)
        limit = job["TimelimitRaw"]
        self.jobs += 1
        if limit.isdigit():
            _count(self.seconds, elapsed, 60 * float(limit))
        _count(self.core_seconds, seconds_of(job["TotalCPU"]), elapsed * cores)
        peaks = [bytes_of(step["MaxRSS"]) * int(step["NTasks"] or 1) for step in steps if step["MaxRSS"]]
        memory = _resource(job["ReqTRES"], "mem")
        if peaks and memory:
            _count(self.byte_seconds, elapsed * max(peaks), elapsed * bytes_of(memory))
        busy = [float(found) for step in steps if (found := _resource(step["TRESUsageInAve"], "gres/gpuutil"))]
        if busy:
            _count(self.gpu_seconds, elapsed * min(max(busy), 100) / 100, elapsed)


def usage(stages: Mapping[str, str]) -> dict[str, StageUsage]:
    """Usage by stage.

    Args:
        stages: stage of each array, by its number.

    Raises:
        UsageError: Slurm keeps no accounts.
    """
    names = (*_FIELDS, "TRESUsageInAve")
    words = ("--noheader", "--parsable2", f"--jobs={','.join(stages)}", f"--format={','.join(names)}")
    jobs: dict[str, dict[str, str]] = {}
    steps: dict[str, list[dict[str, str]]] = {}
    for line in ask("sacct", *words).splitlines():
        facts = dict(zip(names, line.split("|"), strict=False))
        job, dot, _ = facts["JobID"].partition(".")
        if dot:
            steps.setdefault(job, []).append(facts)
        else:
            jobs[job] = facts
    found: dict[str, StageUsage] = {}
    for name, facts in jobs.items():
        if int(facts["ElapsedRaw"] or 0) > 0:
            found.setdefault(stages[name.split("_")[0]], StageUsage()).add(facts, steps.get(name, []))
    return found


def usage_lines(found: Mapping[str, StageUsage]) -> list[str]:
    """A table with a line for each stage, and a line for whatever was used little."""
    if not found:
        return []
    lines = [f"{'stage':8s} {'jobs':>5s}" + "".join(f"{name + ' used':>13s}" for name in REMEDIES)]
    warnings = []
    for stage, used in found.items():
        shares = used.shares()
        cells = "".join(f"{'—' if share is None else f'{100 * share:.0f} %':>13s}" for share in shares.values())
        lines.append(f"{stage:8s} {used.jobs:5d}{cells}")
        for name, share in shares.items():
            if share is not None and share < LITTLE:
                warnings.append(f"{stage}: {100 * share:.0f} % of the {name} used: {REMEDIES[name]}")
    return [*lines, *warnings]


def seconds_of(time: str) -> float:
    """Seconds of one of sacct's times: `00:08.633`, `01:02:03` or `1-02:03:04`."""
    days, _, clock = time.rpartition("-")
    seconds = 0.0
    for part in clock.split(":"):
        seconds = 60 * seconds + float(part or 0)
    return seconds + 86400 * int(days or 0)


def bytes_of(size: str) -> float:
    """Bytes of one of sacct's sizes, such as `318.12M`."""
    found = re.fullmatch(r"([\d.]+)([KMGT]?)", size)
    return float(found[1]) * _BYTES[found[2]] if found else 0.0


def _resource(resources: str, name: str) -> str | None:
    """One of the values in a text such as `cpu=1,mem=2000M`."""
    pairs: Iterable[tuple[str, str, str]] = (part.partition("=") for part in resources.split(","))
    return next((value for key, _, value in pairs if key == name), None)


def _count(sums: list[float], used: float, asked: float) -> None:
    sums[0] += used
    sums[1] += asked
