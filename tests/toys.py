"""Small samples that a network can learn, and what the tests of several rooms build from them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hpcule.craft import run
from hpcule.craft.method import Method, Problem, ShardResult, SharedResult, Step
from hpcule.craft.table import configure
from hpcule.data.annotations import UNKNOWN, VOID, ArrayMasks, LabelMatrix, MaskNumbers
from hpcule.data.partition import Partition
from hpcule.data.reader import Reader
from hpcule.data.source import Ids, Samples, Source
from hpcule.evaluation.bench import Bench, Report
from hpcule.store import checkpoint
from hpcule.store.read import StoreReader
from hpcule.store.vault import Vault
from hpcule.world.group import World
from hpcule.world.launcher import Place
from hpcule.world.signals import StopFlag


class ToySource(Source):
    """Noise around one random pattern a class; classes follow one another, so that every shard has several."""

    name, kind, split = "toys", "npz", "all"

    def __init__(self, n=60, shape=(3, 8, 8), classes=3, *, contrast=0.25, dtype=np.uint8, labelled=True, seed=0):
        rng = np.random.default_rng(seed)
        patterns = np.random.default_rng(1000).uniform(-1, 1, (classes, *shape))
        numbers = np.arange(n, dtype=np.int64) % classes
        values = 0.5 + contrast * patterns[numbers] + rng.normal(0, 0.1, (n, *shape))
        self.shape, self.levels = shape, int(np.iinfo(dtype).max)
        self.samples = np.rint(values.clip(0, 1) * self.levels).astype(dtype)
        self.labels = numbers if labelled else None
        self.class_names = tuple(f"class{k}" for k in range(classes)) if labelled else None
        self.reads = 0

    def __len__(self):
        return len(self.samples)

    def read(self, ids: Ids) -> Samples:
        self.reads += 1
        return self.samples[ids]


class AnnotatedToys(ToySource):
    """Toys with three labels each, and masks that show where an image is bright."""

    def __init__(self, n=60, size=16, *, seed=0, background=True):
        super().__init__(n, (3, size, size), seed=seed)
        draws = np.random.default_rng(seed)
        values = (self.labels[:, None] == np.arange(3)).astype(np.int8)
        values[draws.random((n, 3)) < 0.2] = UNKNOWN
        self.label_matrix = LabelMatrix(values, ("a", "b", "c"))
        light = self.samples.mean(1)
        masks = np.digitize(light, [100, 150]).astype(np.uint8)
        masks[draws.random(masks.shape) < 0.1] = VOID
        names = ("background" if background else "dark", "grey", "bright")
        self.masks = ArrayMasks(masks, MaskNumbers.named(dict(enumerate(names))))


def alone() -> World:
    """A world of one process."""
    return World(Place("single"), 0, 1, torch.device("cpu"), timedelta(seconds=60))


def make_problem(source: Source, world: World | None = None, *, shards=4, **settings: Any) -> Problem:
    """What a method gets to work on: everything resident, float32, exact sums."""
    cut = Partition(len(source), shards)
    settings = {"seed": 0, "exact": True, "autocast": False, **settings}
    return Problem(source, cut, Reader(source, cut, 2**30), world or alone(), **settings)


@dataclass
class Outcome:
    """What a method has yielded on one rank."""

    deltas: dict[int, np.ndarray] = field(default_factory=dict)
    """Delta in levels by shard."""
    groups: dict[int, np.ndarray] = field(default_factory=dict)
    shared: np.ndarray | None = None
    steps: list[Step] = field(default_factory=list)

    @property
    def delta(self) -> np.ndarray:
        """Delta in levels of all shards, by id."""
        return np.concatenate([self.deltas[shard] for shard in sorted(self.deltas)])

    @property
    def group(self) -> np.ndarray:
        """Group of all samples, by id."""
        return np.concatenate([self.groups[shard] for shard in sorted(self.groups)])


def make_store(path: Path, source: Source, world: World, *settings: str) -> StoreReader:
    """A complete store of class-wise random noise."""
    config = configure("classwise", "toys", preset=None, file={}, overrides=["seed=0", *settings])
    run.craft(config, source, Vault(path), world, StopFlag(), resume=True, report=lambda step: None)
    return StoreReader(Vault(path))


def store_of(data: Path, path: Path, *settings: str) -> Vault:
    """A complete store of class-wise noise for the samples of a path."""
    config = configure("classwise", str(data), preset=None, file={}, overrides=["seed=0", "store.shards=2", *settings])
    source = config.opening.source(str(data))
    run.craft(config, source, Vault(path), alone(), StopFlag(), resume=True, report=lambda step: None)
    return Vault(path)


def measure_toys(measure, config, store, out, world, stop=None):
    """A measure on toys and a store of theirs, and what it told: (what, done, in all); `stop` says where it ends."""
    told = []

    def report(label, done, total):
        told.append((label, done, total))
        if stop is not None and stop(label, done):
            raise KeyboardInterrupt

    reader = store if isinstance(store, StoreReader) else StoreReader(Vault(store))
    return measure(config, toy_bench(reader, out, world, report)), told


def toy_bench(store: StoreReader, out: Path, world: World | None = None, report: Report = lambda *done: None) -> Bench:
    """A store of toys and what it is measured with."""
    source, test = ToySource(120), ToySource(60, seed=1)
    return Bench(store=store, source=source, test=test, out=out, world=world or alone(), report=report)


def craft(method: Method, *, stop_after: int | None = None) -> Outcome:
    """Run a method to its end, or up to its n-th step."""
    outcome = Outcome()
    for event in method.run():
        if isinstance(event, Step):
            outcome.steps.append(event)
            if len(outcome.steps) == stop_after:
                break
        elif isinstance(event, SharedResult):
            outcome.shared = np.array(event.delta)
        elif isinstance(event, ShardResult) and event.delta is not None:
            outcome.deltas[event.shard] = np.array(event.delta)
        elif isinstance(event, ShardResult):
            outcome.groups[event.shard] = np.array(event.group)
    return outcome


def joined(outcomes: list[Outcome]) -> Outcome:
    """The ranks' outcomes as one."""
    first = outcomes[0]
    for other in outcomes[1:]:
        assert not set(first.deltas) & set(other.deltas)
        assert not set(first.groups) & set(other.groups)
        assert (first.shared is None) == (other.shared is None)
        assert first.shared is None or (first.shared == other.shared).all()
        first.deltas.update(other.deltas)
        first.groups.update(other.groups)
    return first


def save(method: Method, store: Path) -> None:
    """Write a method's state as a run does, from one rank."""
    (store / "run").mkdir(exist_ok=True)
    state = method.state()
    states = {"shared": state.shared, **state.parts}
    checkpoint.make_folder(Vault(store), 1)
    checkpoint.commit(Vault(store), 1, "toy run", [checkpoint.save(Vault(store), 1, 0, states)])


def restore(method: Method, store: Path) -> Method:
    """Read it back."""
    saved = checkpoint.latest(Vault(store), "toy run")
    assert saved is not None
    method.restore(saved)
    return method
