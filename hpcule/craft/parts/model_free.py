"""The template of the methods without a surrogate: a sample's delta follows from its label, its id and the seed."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, TypeVar

import numpy as np
import numpy.typing as npt

from hpcule.config.run import LengthConfig
from hpcule.craft.method import Config, Event, Method, Problem, Saved, Settings, ShardResult, State, Step
from hpcule.craft.parts.levels import to_levels_of_length
from hpcule.data.source import Ids, Labels
from hpcule.store.budget import Budget

Integers = npt.NDArray[np.integer[Any]]
Floats = npt.NDArray[np.float64]

TILE = 256
"""Samples perturbed at a time, unless a method says otherwise."""


class ModelFree(Method[Config]):
    """Shard by shard, each rank by itself. Nothing is trained, so nothing is saved."""

    presets: ClassVar[Mapping[str, Settings]] = {"small": {}, "smoke": {}}

    def __init__(self, config: Config, problem: Problem) -> None:
        self.config = config
        self.problem = problem

    def prepare(self) -> Iterator[Event]:
        """What has to be known of all samples, or found, before the first is perturbed; all ranks together."""
        yield from ()

    @abstractmethod
    def answer(self, shard: int) -> ShardResult:
        """The deltas of a shard, or whose delta each of its samples shares."""

    def run(self) -> Iterator[Event]:
        """Deltas of own shards, one shard after the other."""
        yield from self.prepare()
        owned = [shard for shard in self.problem.owned if shard not in self.problem.done]
        for number, shard in enumerate(owned, start=1):
            yield self.answer(shard)
            yield Step("noise", number, len(owned))

    def state(self) -> State:
        """An empty state."""
        return State({})

    def restore(self, saved: Saved) -> None:
        """Finished shards are in the store, and the rest takes as long again."""


class SampleWise(ModelFree[Config]):
    """One delta a sample."""

    @abstractmethod
    def perturb(self, clean: Integers, labels: Labels, ids: Ids) -> Integers:
        """Published minus clean [n, C, H, W], in levels; `clean` are integers of that shape."""

    def answer(self, shard: int) -> ShardResult:
        """Deltas of a shard, made tile by tile."""
        ids = self.problem.partition.ids(shard)
        delta = None
        for tile in self.problem.tiles(ids, self.rows):
            part = self.perturb(self.clean(shard, ids[tile]), self.classes(shard, ids[tile]), ids[tile])
            if delta is None:
                delta = np.empty((len(ids), *part.shape[1:]), part.dtype)
            delta[tile] = part
        return ShardResult(shard, delta=delta)

    @property
    def rows(self) -> int:
        """Samples perturbed at a time."""
        return TILE

    def classes(self, shard: int, ids: Ids) -> Labels:
        """What stands for the labels of a shard's samples int64 [n]; by default, their labels."""
        return self.problem.labels[ids]

    def clean(self, shard: int, ids: Ids) -> Integers:
        """Samples of a shard [n, C, H, W]."""
        samples: Integers = self.problem.reader.take(shard, ids).numpy()
        return samples


Length = TypeVar("Length", bound=LengthConfig)


class OfOneLength(SampleWise[Length]):
    """One delta a sample, scaled to a Euclidean length."""

    root_mean_square: ClassVar[float]
    """Levels of an 8-bit grid a value, where the settings name no budget."""

    @classmethod
    def budget(cls, config: Length, shape: tuple[int, int, int], levels: int) -> Budget:
        """Return the budget, a bound of the Euclidean length (L2)."""
        default = cls.root_mean_square * levels / 255 * math.sqrt(math.prod(shape))
        return Budget("l2", default if config.epsilon is None else config.epsilon)

    def published_change(self, delta: Floats, clean: Integers) -> Integers:
        """A delta of any length at the budget's, on the grid [n, C, H, W], in levels."""
        source = self.problem.source
        length = self.budget(self.config, source.shape, source.levels).epsilon
        delta = delta * (length / np.sqrt(np.square(delta).sum(axis=(1, 2, 3), keepdims=True)))
        return to_levels_of_length(delta, clean, source.levels, length)
