"""Doing a study's items: crafts jointly on all ranks, victims each on one rank."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

from hpcule.config.errors import IN_STUDY, DataError, HpculeError, StoppedError, WorkerError, setting_in
from hpcule.config.tree import to_tree
from hpcule.craft.config import CraftConfig
from hpcule.craft.method import Step
from hpcule.craft.preparation import cut_into_shards, plan
from hpcule.craft.run import craft as run_craft
from hpcule.craft.table import find
from hpcule.data.check import check_same_task
from hpcule.data.opening import Opening
from hpcule.data.source import Source
from hpcule.measure.accuracy import chance_level
from hpcule.store.read import StoreReader
from hpcule.store.vault import Vault
from hpcule.study.config import StudyConfig
from hpcule.study.crafting import crafting_facts, noise_scales
from hpcule.study.documents import VictimItemDocument
from hpcule.study.folder import Beat, StudyFolder
from hpcule.study.grid import Craft, StudyGrid, StudySamples, StudyVictim
from hpcule.victim.job import fingerprint_of
from hpcule.victim.kinds import Basis, PlannedStore
from hpcule.victim.published import Published
from hpcule.victim.training_data import TrainingData
from hpcule.world.group import World
from hpcule.world.signals import StopFlag

Report = Callable[[str, int, int], None]


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
    """Do everything that is not done yet: each craft by all ranks together, then the victims, dealt out to the ranks.

    Raises:
        WorkerError: items failed; the others were done all the same.
    """
    crafts = [craft for craft in grid.crafts.values() if folder.result(craft.key) is None]
    for number, craft in enumerate(crafts):
        report(f"craft {number + 1}/{len(crafts)}", 0, 1)
        do_craft(folder, config, craft, world, report)
    missing = [victim for victim in grid.victims.values() if folder.result(victim.key) is None]
    do_victims(folder, config, missing, world, report)


def do_victims(
    folder: StudyFolder, config: StudyConfig, victims: Sequence[StudyVictim], world: World, report: Report
) -> None:
    """Train victims, dealt out to the ranks.

    Raises:
        WorkerError: victims failed; the others were done all the same.
    """
    mine = victims[world.rank :: world.size]
    failures = []
    for number, victim in enumerate(mine):

        def progress(stage: str, done: int, total: int, number: int = number) -> None:
            report(f"victims {number + 1}/{len(mine)}", done, total)

        try:
            do_victim(folder, config, victim, world.alone(), progress)
        except StoppedError:
            raise
        except HpculeError as error:
            failures.append(f"{victim.title}: {error}")
    failed = [line for part in world.gather(failures) for line in part]
    if failed:
        raise WorkerError(f"{len(failed)} of {len(victims)} victims failed, the first: {failed[0]}")


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
        settings = to_tree(craft.config.method)
        folder.finish(craft.key, {"kind": "craft", "title": craft.title, "settings": settings, **summary, **facts})


def do_victim(folder: StudyFolder, config: StudyConfig, victim: StudyVictim, world: World, report: Report) -> None:
    """Train one victim and note its result, or its failure, which is raised again."""
    beat = Beat(folder, victim.key)

    def note(done: int, total: int) -> None:
        report(victim.title, done, total)
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
    store: Basis | None = StoreReader(Vault(folder.store(craft))) if craft else None
    if victim.planned:
        store = planned_store(victim.planned, source)
    if source.labels is None or test.labels is None:
        raise DataError(f"{source.name} has no labels: victims are trained with labels")
    resident = config.world.resident_mebibytes * 2**20
    data = TrainingData.of(source, config.samples, resident)
    tests, keeper = Published(test, resident=resident), folder.keeper(victim.key, world)
    result = victim.job.train(data, store, tests, world, report, keeper=keeper)[1]
    found = result.document()
    return {
        "kind": "victim",
        "role": victim.job.kind,
        "title": victim.title,
        "craft": craft,
        "chance": chance_level(test.labels),
        "last": result.last.test,
        "best": result.best.test,
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
