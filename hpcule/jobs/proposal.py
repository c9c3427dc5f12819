"""A site file to begin with, from what Slurm says of its partitions."""

from __future__ import annotations

from collections.abc import Sequence

from hpcule.config.errors import UsageError
from hpcule.jobs.scheduler import SlurmPartition

LONGEST_MINUTES = 240
"""Time limit of a proposal: short jobs start sooner, and crafts go on in the next one."""
REPORT_MINUTES = 10


def proposed_site(partitions: Sequence[SlurmPartition], accounts: Sequence[str]) -> str:
    """The text of a site file: jobs of one whole node, with a rank for each GPU, or one rank without GPUs.

    Raises:
        UsageError: no partition is up.
    """
    usable = [partition for partition in partitions if partition.is_up and partition.nodes]
    if not usable:
        raise UsageError("no partition of this cluster is up")
    # The one with the most GPUs a node, the default one among equals.
    chosen = max(usable, key=lambda partition: (partition.gpus, partition.is_default))
    tasks = max(1, chosen.gpus)
    lines = ["# Proposed by `hpcule doctor --site`. The partitions of this cluster:"]
    lines += [f"#   {_described(partition)}" for partition in usable]
    lines += [f"partition: {chosen.name}", *_account(accounts)]
    lines += ["nodes: 1", f"tasks_per_node: {tasks}", f"cpus_per_task: {max(1, chosen.cpus // tasks)}"]
    if chosen.gpus:
        lines.append(f"gpus_per_node: {chosen.gpus}")
    minutes = min(LONGEST_MINUTES, chosen.minutes or LONGEST_MINUTES)
    lines.append(f"minutes: {minutes}")
    if chosen.is_exclusive and tasks > 1:
        lines.append("# Jobs get whole nodes: victims share one.")
        lines.append(f"victim: {{tasks_per_node: {tasks}, gpus_per_node: {chosen.gpus}}}")
    others = [partition for partition in usable if not partition.gpus]
    if chosen.gpus and others:
        lines.append(f"report: {{partition: {others[0].name}, gpus_per_node: 0, minutes: {REPORT_MINUTES}}}")
    lines.append("# setup: [module load python]")
    lines.append("# network_interface: hsn0  # where nodes have several networks")
    return "\n".join(lines) + "\n"


def _account(accounts: Sequence[str]) -> list[str]:
    if len(accounts) == 1:
        return [f"account: {accounts[0]}"]
    return [f"# account: {' or '.join(accounts)}"] if accounts else []


def _described(partition: SlurmPartition) -> str:
    gpus = f", {partition.gpus} GPUs" if partition.gpus else ""
    limit = f"{partition.minutes} minutes" if partition.minutes else "no time limit"
    features = f", features {' '.join(sorted(partition.features))}" if partition.features else ""
    default = " (default)" if partition.is_default else ""
    return (
        f"{partition.name}{default}: up to {partition.nodes} nodes of {partition.cpus} cores{gpus}, "
        f"{partition.megabytes // 1024} GiB, {limit}{features}"
    )
