"""The machine that a run is planned for, and where the run does not fit it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hpcule.config.errors import UsageError
from hpcule.craft.config import CraftConfig
from hpcule.craft.work import Extent, Phase
from hpcule.planning.calibrate import Measured

LARGEST_WORKERS, LARGEST_SAMPLES = 1_000_000, 10**12
NOTABLE = 1.05
"""The busiest worker's shards over the mean, above which it is reported."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where a run is planned. Latency and bandwidth are those between nodes, as seen by one worker."""

    name: str
    nodes: int
    workers_per_node: int
    latency_microseconds: float = 20.0
    gigabytes_per_second: float = 10.0
    limit_minutes: int | None = None
    """Time limit of a job in minutes; None: no limit."""

    def __post_init__(self) -> None:
        """Check ranges."""
        if min(self.nodes, self.workers_per_node) < 1 or self.workers > LARGEST_WORKERS:
            raise UsageError(
                f"{self.nodes} nodes with {self.workers_per_node} workers each: at least 1 of both, and at most "
                f"{LARGEST_WORKERS:,} workers in all"
            )
        if not (0 <= self.latency_microseconds < math.inf and 0 < self.gigabytes_per_second < math.inf):
            raise UsageError(
                f"latency {self.latency_microseconds:g} microseconds, bandwidth {self.gigabytes_per_second:g} "
                f"gigabytes a second: the latency must be at least 0, the bandwidth above 0"
            )

    @property
    def workers(self) -> int:
        """Number of workers on all nodes."""
        return self.nodes * self.workers_per_node


def limits(
    config: CraftConfig,
    extent: Extent,
    machine: Machine,
    measured: Measured,
    phases: Sequence[Phase],
    wall: float,
) -> list[str]:
    """What holds a run back that takes `wall` seconds, in plain words."""
    found = []
    if config.store.shards is not None and config.store.shards < machine.workers:
        found.append(
            f"a run would refuse {machine.workers} workers for {config.store.shards} shards; planned with "
            f"--set store.shards={extent.shards}"
        )
    elif extent.shards == machine.workers > 64:
        found.append(f"more workers than shards by default: planned with --set store.shards={extent.shards}")
    for phase in phases:
        if phase.busy < machine.workers:
            found.append(f"{phase.stage}: at most {phase.busy} of {machine.workers} workers have work in a step")
    if extent.own_shards * machine.workers > NOTABLE * extent.shards:
        found.append(
            f"{extent.shards} shards do not divide among {machine.workers} workers: some own "
            f"{extent.own_shards}, others {extent.own_shards - 1}"
        )
    if machine.workers_per_node > measured.workers:
        found.append(
            f"measured with {measured.workers} workers on {measured.cores} cores: a worker next to "
            f"{machine.workers_per_node - 1} others is taken to be as fast"
        )
    if machine.limit_minutes is not None and wall > 60 * machine.limit_minutes:
        jobs = math.ceil(wall / (60 * machine.limit_minutes))
        found.append(f"takes {jobs} jobs of {machine.limit_minutes} minutes, each resuming the last one's checkpoint")
    return found
