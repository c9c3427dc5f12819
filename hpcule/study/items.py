"""Doing a study's items: crafts jointly on all ranks, victims on groups of as many ranks as each takes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import TypeVar

from hpcule.config.errors import (
    IN_STUDY,
    DataError,
    DivergedError,
    HpculeError,
    StoppedError,
    UsageError,
    WorkerError,
    setting_in,
)
from hpcule.config.tree import to_tree
from hpcule.craft.config import CraftConfig
from hpcule.craft.method import Step
from hpcule.craft.preparation import cut_into_shards, plan
from hpcule.craft.run import craft as run_craft
from hpcule.craft.table import find
from hpcule.data.check import check_same_task
from hpcule.data.opening import Opening
from hpcule.data.source import Source
from hpcule.store.read import StoreReader
from hpcule.store.vault import Vault
from hpcule.study.config import StudyConfig
from hpcule.study.crafting import crafting_facts, noise_scales
from hpcule.study.documents import CraftItemDocument, VictimItemDocument
from hpcule.study.folder import Beat, StudyFolder
from hpcule.study.grid import Craft, StudyGrid, StudySamples, StudyVictim
from hpcule.tasks.table import require_same_answers, task_of
from hpcule.victim.job import fingerprint_of
from hpcule.victim.kinds import Basis, PlannedStore
from hpcule.victim.published import Published
from hpcule.victim.training_data import TrainingData
from hpcule.world.group import World
from hpcule.world.signals import StopFlag

Report = Callable[[str, int, int], None]
Item = TypeVar("Item", Craft, StudyVictim)
BY_WORKERS = "start {ranks} (--workers {ranks})"
BY_JOBS = "submit the study, whose jobs have as many ranks as their victims take"


def open_samples(config: StudyConfig) -> tuple[Source, Source]:
    """The training and test samples of a study on one data set, as the crafts of its first cell open them.

    Raises:
        DataError: the data cannot be opened, or training and test samples do not belong to one task.
        UsageError: more samples asked for than there are.
    """
    source, test = _source(config.data, config.opening), _test(config.data, config.test, config.opening)
    check_same_task(source, test)
    return source, test


def samples_of(source: Source, test: Source) -> StudySamples:
    """The number of training samples, and what training and test samples are, by content; reads them all."""
    return StudySamples(len(source), fingerprint_of(source), fingerprint_of(test))


def require_unchanged(folder: StudyFolder, config: StudyConfig, names: Iterable[str]) -> None:
    """Raise DataError where data sets of these names are no longer what the study was begun on, or last run on."""
    noted = folder.samples()
    for name in names:
        if samples_of(*open_samples(config.on(name))) != noted[name]:
            raise DataError(
                f"the samples of {name} have changed since this study was submitted: run or submit it again, "
                "which does again what depends on them"
            )


def run_all(folder: StudyFolder, config: StudyConfig, grid: StudyGrid, world: World, report: Report) -> None:
    """Do everything that is not done yet: each craft by all ranks together, then the victims; see `do_victims`.

    Raises:
        UsageError: this number of ranks cannot train the victims.
        WorkerError: items failed; the others were done all the same.
    """
    crafts = _missing(folder, grid.crafts.values(), world)
    for number, craft in enumerate(crafts):
        report(f"craft {number + 1}/{len(crafts)}", 0, 1)
        do_craft(folder, config, craft, world, report)
    do_victims(folder, config, list(grid.victims.values()), world, report)


def do_victims(
    folder: StudyFolder, config: StudyConfig, victims: Sequence[StudyVictim], world: World, report: Report
) -> None:
    """Train the victims that are not done yet, dealt out to groups of as many ranks as train one jointly.

    Raises:
        UsageError: this number of ranks cannot train them.
        WorkerError: victims failed; the others were done all the same.
    """
    missing = _missing(folder, victims, world)
    require_ranks(missing, world.size)
    failures = []
    # The largest groups come first, while nobody has to wait for others that train by themselves.
    for workers in sorted({victim.workers for victim in missing}, reverse=True):
        number, group = world.in_groups_of(workers)
        mine = [victim for victim in missing if victim.workers == workers][number :: world.size // workers]
        failures += _do_in_turn(folder, config, mine, group, report)
    failed = [line for part in world.gather(failures) for line in part]
    if failed:
        raise WorkerError(f"{len(failed)} of {len(missing)} victims failed, the first: {failed[0]}")


def _missing(folder: StudyFolder, items: Iterable[Item], world: World) -> list[Item]:
    """The items that no rank sees as done: all ranks have to go through the same ones, and a shared folder may show
    them different results."""
    items = list(items)
    seen = world.gather([item.key for item in items if folder.result(item.key) is None])
    agreed = set.intersection(*map(set, seen))
    return [item for item in items if item.key in agreed]


def _do_in_turn(
    folder: StudyFolder, config: StudyConfig, mine: Sequence[StudyVictim], group: World, report: Report
) -> list[str]:
    """Train the victims of a group of ranks one after another; a line for each that failed, on the group's first rank.

    Raises:
        HpculeError: one rank of several has failed, and the others wait for it.
    """
    failures = []
    for number, victim in enumerate(mine):

        def progress(stage: str, done: int, total: int, number: int = number) -> None:
            report(f"victims {number + 1}/{len(mine)}", done, total)

        try:
            do_victim(folder, config, victim, group, progress)
        except StoppedError:
            raise
        except HpculeError as error:
            if group.size > 1 and not isinstance(error, UsageError | DivergedError):
                raise
            if group.leads:
                failures.append(f"{victim.title}: {error}")
    return failures


def require_ranks(victims: Sequence[StudyVictim], ranks: int, remedy: str = BY_WORKERS) -> None:
    """Refuse a number of ranks that cannot train these victims.

    Args:
        victims: to be trained in one run.
        ranks: of the run.
        remedy: how to have {ranks} ranks.

    Raises:
        UsageError: the ranks cannot be cut into groups that train one victim each.
    """
    needed = sorted({victim.workers for victim in victims})
    for workers in needed:
        if ranks % workers:
            raise UsageError(
                f"victim.workers={workers} trains each victim on {workers} ranks, and {ranks} is no multiple of "
                f"{workers}; {remedy.format(ranks=math.lcm(*needed))}, or a multiple"
            )
    for victim in victims:
        if victim.job.config.engine == "deepspeed" and victim.workers != ranks:
            one = remedy.format(ranks=victim.workers) if len(needed) == 1 else BY_JOBS
            raise UsageError(
                f"victim.engine=deepspeed trains a victim on all ranks of a run, here {ranks}, and victim.workers="
                f"{victim.workers}; {one}, or set victim.engine=ddp"
            )


def do_craft(folder: StudyFolder, config: StudyConfig, craft: Craft, world: World, report: Report) -> None:
    """Craft one store, or go on with it; a failure is noted and raised again."""
    beat = Beat(folder, craft.key)

    def note(step: Step) -> None:
        report(step.stage, step.done, step.total)
        if world.leads:
            beat.note(step.stage, step.done, step.total)

    try:
        with setting_in(IN_STUDY):
            summary = run_craft(
                craft.config,
                _source(craft.config.data, craft.config.opening),
                Vault(folder.store(craft.key)),
                world,
                StopFlag(),
                resume=True,
                report=note,
                cache=folder.path / "cache",
            )
    except StoppedError:
        raise
    except HpculeError as error:
        folder.fail(craft.key, error)
        raise
    if world.leads:
        method = find(craft.config.method.name)
        facts = crafting_facts(folder.store(craft.key), method.loss, config.craft_target)
        with StoreReader(Vault(folder.store(craft.key))) as store:
            deltas = store.deltas_sha256()
        settings = to_tree(craft.config.method)
        item: CraftItemDocument = {
            "kind": "craft",
            "title": craft.title,
            "settings": settings,
            "deltas": deltas,
            **summary,
            **facts,
        }
        folder.finish(craft.key, item)


def do_victim(folder: StudyFolder, config: StudyConfig, victim: StudyVictim, world: World, report: Report) -> None:
    """Train one victim on all ranks of a world and note its result, or its failure, which is raised again."""
    beat = Beat(folder, victim.key)

    def note(done: int, total: int) -> None:
        report(victim.title, done, total)
        if world.leads:
            beat.note("training", done, total)

    try:
        with setting_in(IN_STUDY):
            result = _train(folder, config, victim, world, note)
    except StoppedError:
        raise
    except HpculeError as error:
        folder.fail(victim.key, error)
        raise
    if world.leads:
        folder.finish(victim.key, result)


def _train(
    folder: StudyFolder, config: StudyConfig, victim: StudyVictim, world: World, report: Callable[[int, int], None]
) -> VictimItemDocument:
    config = config.on(victim.data)
    craft = folder.best(victim.crafts) if victim.crafts else None
    source, test = _source(config.data, victim.opening), _test(config.data, config.test, victim.opening)
    check_same_task(source, test)
    task = victim.job.config.task
    require_same_answers(task, source, test)
    store: Basis | None = StoreReader(Vault(folder.store(craft))) if craft else None
    if victim.planned:
        store = planned_store(victim.planned, source)
    resident = config.world.resident_mebibytes * 2**20
    data = TrainingData.of(source, config.samples, resident)
    tests = Published(test, resident=resident, task=task_of(task, test))
    keeper = folder.keeper(victim.key, world)
    result = victim.job.train(data, store, tests, world, report, keeper=keeper).result
    found = result.document()
    item: VictimItemDocument = {
        "kind": "victim",
        "role": victim.job.kind,
        "title": victim.title,
        "craft": craft,
        "workers": world.size,
        "measure": tests.task.measure,
        "chance": tests.task.chance(test),
        "last": result.last.test,
        "best": result.best.test,
        "measures": dict(result.last.measures),
        "noise_scales": noise_scales(result.gradient_norms),
        "seed": found["seed"],
        "batch_asked": None if victim.job.config.countermeasures.features else victim.job.config.batch,
        "batch_taken": found["batch_taken"],
        "steps": found["steps"],
        "samples_seen": found["samples_seen"],
        "seconds": found["seconds"],
        "curve": found["curve"],
        "steps_to_target": found["steps_to_target"],
        "alignment": found["alignment"],
        "uniformity": found["uniformity"],
    }
    if task == "label" and test.labels is not None:
        item["balanced_chance"] = 1 / len(set(test.labels.tolist()))
    return item


def planned_store(config: CraftConfig, source: Source) -> PlannedStore:
    """The store that a craft will make, as far as its random-noise control depends on it."""
    # Neither shards nor the fingerprint of the samples count.
    manifest = plan(config, source, cut_into_shards(config, source, workers=1), fingerprint="", bf16=False)
    return PlannedStore(manifest, source.labels)


@lru_cache(maxsize=2)
def _source(data: str, opening: Opening) -> Source:
    return opening.source(data)


@lru_cache(maxsize=2)
def _test(data: str, test: str | None, opening: Opening) -> Source:
    return opening.test(data, test)
