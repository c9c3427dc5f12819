"""Plans: a craft or a whole study on a machine, from the cost model and its calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache

from hpcule.config.errors import UsageError
from hpcule.config.tree import Tree
from hpcule.craft.config import CraftConfig
from hpcule.craft.preparation import check_craft_batch, check_task
from hpcule.craft.table import find
from hpcule.data.opening import Opening
from hpcule.data.source import Source
from hpcule.planning.calibrate import local_workers
from hpcule.planning.machine import LARGEST_SAMPLES, Machine
from hpcule.planning.measurements import Measurements
from hpcule.planning.predict import Prediction, predict
from hpcule.planning.timed import extrapolate
from hpcule.planning.trial import extent_of, planned_cut
from hpcule.planning.victim_trial import VictimTrial
from hpcule.study.config import StudyConfig
from hpcule.study.grid import StudySamples, StudyVictim, expand


@dataclass(frozen=True, kw_only=True)
class StudyPlan:
    """A study on one machine: crafts one after another by all workers, then victims dealt out, one a worker, or one a
    group of workers that train it jointly."""

    machine: str
    nodes: int
    workers: int
    lower_bound: bool
    """Whether it takes at least as long: the trial of a craft was not finished."""
    crafts: int
    victims: int
    craft_seconds: float
    """Wall time of all crafts, without start-up."""
    victim_seconds: float
    """Wall time of the worker with most to train."""
    longest_craft_seconds: float
    """Wall time of the longest craft by itself, with its start-up."""
    longest_victim_seconds: float
    """Time of the longest victim, without start-up."""
    start_seconds: float
    wall_seconds: float
    node_hours: float
    worker_hours: float
    memory_bytes: float
    """Memory of the largest worker while it crafts, in bytes."""
    store_bytes: int
    """Size of all stores together, in bytes."""
    traffic_bytes: float | None
    """Sent by a worker; None if it is not known of every craft."""
    limits: tuple[str, ...]

    def document(self) -> Tree:
        """Return the plan as plain values for JSON."""
        return asdict(self)


def plan_craft(
    config: CraftConfig,
    source: Source,
    samples: int,
    machine: Machine,
    known: Measurements,
    *,
    features_kept: bool = False,
) -> Prediction:
    """A craft of `samples` samples like the source's.

    Raises:
        DataError: the method needs labels and the source has none.
        UsageError: numbers out of range, a batch larger than the samples, or a calibration file for something else.
    """
    if not 2 <= samples <= LARGEST_SAMPLES or samples < machine.workers:
        raise UsageError(
            f"{samples} samples on {machine.workers} workers: valid are 2 to {LARGEST_SAMPLES:,}, at least one a worker"
        )
    check_task(config, source)
    check_craft_batch(config, samples)
    method, local = find(config.method.name), local_workers(config.world, machine.workers_per_node)
    cut = planned_cut(config, source, samples, machine.workers)
    extent = extent_of(config, source, cut, machine.workers, "cpu")
    if method.work(config.method, extent) is None:
        timing, shared = known.timing(config, source, local), method.groups(config.method, source)
        return extrapolate(config, replace(extent, device=timing.device), shared, machine, timing)
    measured = known.craft(config, source, samples, local)
    return predict(config, replace(extent, device=measured.device), machine, measured, features_kept=features_kept)


def plan_study(config: StudyConfig, machine: Machine, known: Measurements) -> StudyPlan:
    """All crafts and victims of a study. What crafts have in common and a study keeps is counted once."""

    settings_of = {name: config.on(name) for name in config.data_sets}

    @cache
    def opened(data: str, opening: Opening) -> tuple[Source, int]:
        """The samples of a data set, and the number of its test samples."""
        own = settings_of[data]
        return opening.source(own.data), len(opening.test(own.data, own.test))

    # Nothing is trained here, so nothing needs to be found again by the content of samples: the name stands for it.
    samples = {
        name: StudySamples(len(opened(name, own.opening)[0]), training=name, test=name)
        for name, own in settings_of.items()
    }
    grid = expand(config, samples)
    crafts: list[Prediction] = []
    crafted: set[str] = set()
    for craft in grid.crafts.values():
        # The study's workers, which craft one store after another, have the study's device and threads.
        world = replace(craft.config.world, device=config.world.device, threads=config.world.threads)
        settings = replace(craft.config, world=world)
        source, _ = opened(craft.data, settings.opening)
        kept = craft.data in crafted
        crafts.append(plan_craft(settings, source, len(source), machine, known, features_kept=kept))
        crafted.add(craft.data)
    victims = list(grid.victims.values())
    seconds = [
        _victim_seconds(settings_of[victim.data], victim, *opened(victim.data, victim.opening), machine, known)
        for victim in victims
    ]
    longest = _dealt_seconds(victims, seconds, machine.workers)
    crafting = sum(craft.wall_seconds - craft.start_seconds for craft in crafts)
    start = crafts[0].start_seconds
    wall = start + crafting + longest
    traffic = [craft.traffic_bytes for craft in crafts]
    return StudyPlan(
        machine=machine.name,
        nodes=machine.nodes,
        workers=machine.workers,
        lower_bound=any(craft.lower_bound for craft in crafts),
        crafts=len(crafts),
        victims=len(seconds),
        craft_seconds=crafting,
        victim_seconds=longest,
        longest_craft_seconds=max(craft.wall_seconds for craft in crafts),
        longest_victim_seconds=max(seconds),
        start_seconds=start,
        wall_seconds=wall,
        node_hours=wall * machine.nodes / 3600,
        worker_hours=wall * machine.workers / 3600,
        memory_bytes=max(craft.memory_bytes for craft in crafts),
        store_bytes=sum(craft.store_bytes for craft in crafts),
        traffic_bytes=None if None in traffic else sum(sent for sent in traffic if sent is not None),
        limits=(*_study_limits(crafts, victims, machine), *grid.notes),
    )


def _victim_seconds(
    config: StudyConfig,
    victim: StudyVictim,
    source: Source,
    tests: int,
    machine: Machine,
    known: Measurements,
) -> float:
    """One victim by itself, next to others on the same node; ranks that train one jointly share its work evenly."""
    settings = victim.job.config
    trial = VictimTrial(victim=settings, data=config.data, test=config.test, opening=victim.opening, world=config.world)
    local = local_workers(config.world, machine.workers_per_node)
    alone = known.victim(trial, source, local).seconds(settings, config.samples or len(source), tests)
    return alone / victim.workers


def _dealt_seconds(victims: Sequence[StudyVictim], seconds: Sequence[float], workers: int) -> float:
    """Seconds of the worker with most to train; groups of one size after those of another."""
    total = 0.0
    for size in {victim.workers for victim in victims}:
        own = [taken for victim, taken in zip(victims, seconds, strict=True) if victim.workers == size]
        groups = max(1, workers // size)
        total += max(sum(own[group::groups]) for group in range(min(groups, len(own))))
    return total


def _study_limits(crafts: Sequence[Prediction], victims: Sequence[StudyVictim], machine: Machine) -> list[str]:
    """The crafts' limits, each once, and what comes of dealing victims to workers."""
    found = list(dict.fromkeys(line for craft in crafts for line in craft.limits))
    taken = sum(victim.workers for victim in victims)
    if taken < machine.workers:
        found.append(f"victims: {len(victims)} for {machine.workers} workers, of which {taken} have one to train")
    if any(victim.workers > 1 for victim in victims):
        found.append("victims: those of several workers are taken to train that many times as fast as on one")
    return found


def assumptions(known: Measurements, machines: Sequence[Machine]) -> Mapping[str, list[str]]:
    """What a plan rests on, separately: `measured` and `assumed`."""
    measured = [
        f"{entry.settings['method']['name']}: short crafts with {entry.workers} worker(s) of {entry.threads} thread(s) "
        f"on {entry.cores} cores ({entry.device}), {entry.measured_seconds:.0f} s, load {entry.load:.1f} before"
        for entry in known.crafts
    ]
    measured += [
        f"{entry.settings['method']['name']}: crafts of {' and '.join(str(run.samples) for run in entry.runs)} samples "
        f"with {entry.workers} worker(s) on {entry.cores} cores, {entry.measured_seconds:.0f} s, load "
        f"{entry.load:.1f} before"
        for entry in known.timings
    ]
    measured += [
        f"{entry.settings['victim']['network']}, batch {entry.settings['victim']['batch']}: short trainings side by "
        f"side on {entry.workers} worker(s), {entry.measured_seconds:.0f} s, load {entry.load:.1f} before"
        for entry in known.victims
    ]
    assumed = ["every node is like this machine, and has it to itself"]
    assumed += [
        f"{machine.name}: {machine.latency_microseconds:g} microseconds and {machine.gigabytes_per_second:g} GB/s a "
        f"worker between nodes; no time is added for waiting for slower nodes"
        for machine in machines
        if machine.nodes > 1
    ]
    if any(machine.nodes > 1 for machine in machines):
        assumed.append("the shared file system takes every node's shards as fast as this machine's disk takes its own")
    return {"measured": measured, "assumed": assumed}
