"""One victim by itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from hpcule.config.errors import UsageError
from hpcule.config.run import WorldConfig
from hpcule.config.tree import dump_yaml, to_tree
from hpcule.config.version import __version__
from hpcule.data.opening import Opening
from hpcule.data.source import Source
from hpcule.store.files import private_directory, to_json, write_atomically
from hpcule.store.fingerprint import require_same_samples
from hpcule.store.read import StoreReader
from hpcule.tasks.table import require_same_answers, task_of
from hpcule.victim.config import VictimConfig
from hpcule.victim.job import Fingerprints, VictimJob, fingerprint_of
from hpcule.victim.keeper import Keeper
from hpcule.victim.published import Published
from hpcule.victim.result import ResultDocument
from hpcule.victim.training_data import TrainingData
from hpcule.world.group import World


class TrainDocument(ResultDocument):
    """results.json of one training; accuracies are in [0, 1]."""

    kind: str
    hpcule: str
    data: str
    protected: bool
    workers: int
    batch_asked: int | None
    last: float
    best: float
    best_epoch: int


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Opening):
    """One training: how the samples are opened, and what is trained on them. A store says the former itself."""

    victim: VictimConfig = field(default_factory=VictimConfig)
    seed: int = 0
    world: WorldConfig = field(default_factory=WorldConfig)


def opening_of(config: TrainConfig, store: StoreReader | None) -> Opening:
    """How the samples are opened: as a store says if there is one, else as the configuration does.

    Raises:
        UsageError: the configuration contradicts the store.
    """
    if store is None:
        return config.opening
    stored = store.manifest.opening
    for name, value in dataclasses.asdict(config.opening).items():
        if value not in (getattr(Opening(), name), getattr(stored, name)):
            raise UsageError(f"{name}={value}: the store was crafted with {getattr(stored, name)}: leave it out")
    return stored


def train(
    config: TrainConfig,
    source: Source,
    test: Source,
    store: StoreReader | None,
    out: Path,
    world: World,
    report: Callable[[str, int, int], None],
) -> TrainDocument:
    """Train a victim on clean samples, or as `store` publishes them, and write results.json and config.yaml to `out`.

    Until then `out` holds a checkpoint, named by all that the victim depends on.

    Raises:
        DataError: these samples, or those of the test, cannot have the task.
        StoreError: the store was made for other samples.
    """
    if store and world.leads:
        require_same_samples(store.manifest, source)
    resident = config.world.resident_mebibytes * 2**20
    mixture = config.victim.countermeasures.at("mixture")
    if mixture and not store:
        raise UsageError(f"victim.countermeasures={mixture[0]}: mixes clean samples with protected ones: give --store")
    job = VictimJob(config.victim, "protected" if store else "clean", config.seed)
    require_same_answers(config.victim.task, source, test)
    data = TrainingData.of(source, None, resident)
    tests = Published(test, resident=resident, task=task_of(config.victim.task, test))
    keeper = Keeper(world, out / f"{_name(job, data, test, store, world)}.checkpoint")
    trained = job.train(data, store, tests, world, lambda done, total: report("training", done, total), keeper=keeper)
    result = trained.result
    results: TrainDocument = {
        "kind": "train",
        "hpcule": __version__,
        "data": source.name,
        "protected": store is not None,
        "workers": world.size,
        "batch_asked": None if config.victim.countermeasures.features else config.victim.batch,
        "last": result.last.test,
        "best": result.best.test,
        "best_epoch": result.best.epoch,
        **result.document(),
    }
    if world.leads:
        private_directory(out)
        write_atomically(out / "results.json", to_json(results))
        write_atomically(out / "config.yaml", dump_yaml(to_tree(config)).encode())
        keeper.discard()
    return results


def _name(job: VictimJob, data: TrainingData, test: Source, store: StoreReader | None, world: World) -> str:
    """Name of the victim's checkpoint, for which rank 0 reads all samples that no store is a fingerprint of."""
    name = ""
    if world.leads:
        if store is not None:
            seen = Fingerprints.of(store, data, test)
        else:
            seen = Fingerprints(fingerprint_of(data.source), fingerprint_of(test))
        name = job.key(seen)
    return world.gather(name)[0]
