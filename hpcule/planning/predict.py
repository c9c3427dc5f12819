"""From counted work and measured seconds to wall time, memory, disk and traffic on a machine of any size.

    wall = start + prepare + read + craft + agree + write
    craft = sum over stages: once + starts, passes, calls and sums, each times its seconds

All arithmetic: nothing of the size of the data or of the machine is held in memory.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from hpcule.config.tree import Tree
from hpcule.craft.config import CraftConfig
from hpcule.craft.table import find
from hpcule.craft.work import Extent, Phase
from hpcule.planning.calibrate import Calibration, Rate
from hpcule.planning.machine import Machine, limits
from hpcule.planning.trial import grown_bytes, store_bytes
from hpcule.world.group import TREE_BYTES

TICK_BYTES = 24
"""Three numbers, by which all ranks agree after each step whether to save, to stop, or to end."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Seconds of one stage on the busiest rank."""

    stage: str
    compute_seconds: float
    communication_seconds: float
    busy: int
    """Workers that have something to do."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """One craft on one machine."""

    machine: str
    nodes: int
    workers: int
    samples: int
    shards: int
    lower_bound: bool = False
    """Whether the run takes at least as long: a trial of it was not finished."""
    wall_seconds: float
    craft_seconds: float
    """Crafting time in seconds, as `craft --json` reports it."""
    start_seconds: float
    storage_seconds: float
    agree_seconds: float
    """Seconds in which ranks agree after each step whether to go on, and wait for each other."""
    node_hours: float
    worker_hours: float
    memory_bytes: float
    """Memory of the largest worker, in bytes."""
    store_bytes: int
    checkpoint_bytes: float
    """Size of one checkpoint in bytes; two are kept, and a third exists while it is written."""
    traffic_bytes: float | None
    """Sent by a worker over the whole run; None if it is not known."""
    stages: tuple[Stage, ...]
    limits: tuple[str, ...]
    """What holds this run back, and what could not be known."""

    def document(self) -> Tree:
        """Return the prediction as plain values for JSON."""
        return asdict(self)


def predict(
    config: CraftConfig, extent: Extent, machine: Machine, measured: Calibration, *, features_kept: bool = False
) -> Prediction:
    """What a craft of a method that counts its work takes, on a machine whose nodes are like the one that was measured.

    Args:
        config: the settings of the run.
        extent: its size, with the machine's number of workers.
        machine: where it runs.
        measured: the calibration.
        features_kept: an earlier craft of the same study has done what a study does once.
    """
    work = find(config.method.name).work(config.method, extent)
    assert work is not None, "methods that count no work are timed"
    phases = [phase for phase in work.phases if not (phase.kept and features_kept)]
    rates = {rate.stage: rate for rate in measured.rates}
    stages = tuple(_stage(phase, rates[phase.stage], machine, measured) for phase in phases)
    craft = sum(stage.compute_seconds + stage.communication_seconds for stage in stages)
    store = store_bytes(config, extent, work.shared)
    checkpoints = work.checkpoint * int(craft / max(1.0, config.world.checkpoint_seconds))
    storage = _storage_seconds(extent, store, checkpoints, measured)
    marks = sum(phase.marks for phase in phases)
    agree = craft * measured.wait_share + marks * _step_seconds(machine, measured)
    start = measured.start_seconds + measured.prepare_seconds
    wall = start + craft + storage + agree
    return Prediction(
        machine=machine.name,
        nodes=machine.nodes,
        workers=machine.workers,
        samples=extent.samples,
        shards=extent.shards,
        wall_seconds=wall,
        craft_seconds=craft,
        start_seconds=start,
        storage_seconds=storage,
        agree_seconds=agree,
        node_hours=wall * machine.nodes / 3600,
        worker_hours=wall * machine.workers / 3600,
        memory_bytes=measured.base_bytes + grown_bytes(config, extent, work),
        store_bytes=store,
        checkpoint_bytes=work.checkpoint,
        traffic_bytes=sum(phase.sums * _sent(phase.ranks, phase.sum_bytes) for phase in phases),
        stages=stages,
        limits=(*limits(config, extent, machine, measured, phases, wall), *work.notes),
    )


def sum_seconds(ranks: int, size: float, machine: Machine, device: str) -> float:
    """A sum of `size` bytes over ranks of several nodes.

    As hpcule does it: on CPUs up a binary tree and down again up to 1 MiB, beyond that in a ring; on GPUs NCCL is taken
    to choose the faster of the two.
    """
    if ranks == 1:
        return 0.0
    latency, bandwidth = machine.latency_microseconds / 1e6, machine.gigabytes_per_second * 1e9
    tree = 2 * math.ceil(math.log2(ranks)) * (latency + size / bandwidth)
    ring = 2 * (ranks - 1) * latency + _sent(ranks, size) / bandwidth
    if device == "cpu":
        return tree if size <= TREE_BYTES else ring
    return min(tree, ring)


def _stage(phase: Phase, rate: Rate, machine: Machine, measured: Calibration) -> Stage:
    compute = phase.passes * rate.pass_seconds + phase.calls * rate.call_seconds + phase.starts * rate.start_seconds
    return Stage(
        stage=phase.stage,
        compute_seconds=compute + (rate.once_seconds if phase.marks else 0.0),
        communication_seconds=phase.sums * _one_sum(phase, rate, machine, measured),
        busy=phase.busy,
    )


def _one_sum(phase: Phase, rate: Rate, machine: Machine, measured: Calibration) -> float:
    """Seconds of one sum: measured within a node, in proportion to the ranks; by latency and bandwidth across nodes."""
    if phase.ranks > 1 and machine.nodes == 1 and rate.sum_seconds > 0:
        return rate.sum_seconds * phase.ranks / measured.workers
    return sum_seconds(phase.ranks, phase.sum_bytes, machine, measured.device)


def _step_seconds(machine: Machine, measured: Calibration) -> float:
    """Agreeing after a step: as measured on one node; over nodes in hpcule's own tree, through gloo on any device."""
    if machine.nodes == 1:
        return measured.step_seconds
    return sum_seconds(machine.workers, TICK_BYTES, machine, "cpu")


def _storage_seconds(extent: Extent, size: int, checkpoints: float, measured: Calibration) -> float:
    """Reading all own samples once, writing own shards and checkpoints, and the manifest over all shards at the end.

    Args:
        extent: of the run.
        size: bytes of the store.
        checkpoints: bytes of all checkpoints that are written.
        measured: the calibration.
    """
    read = extent.own_samples * measured.read_sample_seconds + extent.own_shards * measured.read_shard_seconds
    own = (size + checkpoints) * extent.own_shards / extent.shards
    write = own * measured.write_byte_seconds + extent.own_shards * measured.write_shard_seconds
    return read + write + extent.shards * measured.finish_shard_seconds


def _sent(ranks: int, size: float) -> float:
    """Bytes that a rank of a ring sends for one sum."""
    return 2 * (ranks - 1) / ranks * size
