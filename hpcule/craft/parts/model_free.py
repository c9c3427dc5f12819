"""The template of the methods without a surrogate: a sample's delta follows from its label, its id and the seed."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, ClassVar, TypeVar

import numpy as np
import numpy.typing as npt

from hpcule.config.run import CraftTask, LengthConfig
from hpcule.craft.method import Config, Event, Method, Problem, Saved, Settings, ShardResult, State, Step
from hpcule.craft.parts.levels import to_levels_of_length
from hpcule.data.source import Ids, Labels
from hpcule.measure.contrast import budget_shares
from hpcule.store.budget import Budget
from hpcule.tasks.table import task_of

Integers = npt.NDArray[np.integer[Any]]
Floats = npt.NDArray[np.float64]
Chosen = npt.NDArray[np.bool_]
"""Which of some samples [n]."""

TILE = 256
"""Samples perturbed at a time, unless a method says otherwise."""
_VALUES = 1 << 23
"""Values perturbed at a time, where these are fewer samples: of volumes."""


def in_range(delta: Integers, clean: Integers, levels: int) -> Integers:
    """What is left of deltas [n, C, H, W] where published samples keep to 0..levels."""
    published: Integers = np.clip(clean.astype(np.int64) + delta, 0, levels)
    return published - clean


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
        ids, source = self.problem.partition.ids(shard), self.problem.source
        dtype = self.budget(self.config, source.shape, source.levels).dtype(source.levels)
        delta = np.empty((len(ids), *source.shape), dtype)
        for tile in self.problem.tiles(ids, self.rows):
            delta[tile] = self._of_tile(shard, ids[tile])
        return ShardResult(shard, delta=delta)

    @property
    def rows(self) -> int:
        """Samples perturbed at a time."""
        return max(1, min(TILE, _VALUES // math.prod(self.problem.source.shape)))

    def _of_tile(self, shard: int, ids: Ids) -> Integers:
        clean, tasks = self.clean(shard, ids), self.problem.crafted_for
        if tasks.one_label:
            return self.perturb(clean, self.classes(shard, ids), ids)
        total = np.zeros(clean.shape, np.int64)
        for name, first in zip(tasks.names, self.first_classes, strict=True):
            for number, chosen, share in self._classes_of(name, shard, ids):
                total += self._of_class(first + number, chosen, clean, ids) * share
        return self.within(total, clean)

    @cached_property
    def class_counts(self) -> list[int]:
        """Number of classes of each task that is crafted for."""
        return [task_of(name, self.problem.source).outputs for name in self.problem.crafted_for.names]

    @property
    def class_count(self) -> int:
        """Number of classes of all tasks, each of which has something of its own."""
        return sum(self.class_counts)

    @property
    def first_classes(self) -> list[int]:
        """Number of the first class of each task among those of all tasks."""
        return [sum(self.class_counts[:place]) for place in range(len(self.class_counts))]

    def _classes_of(self, name: CraftTask, shard: int, ids: Ids) -> Iterator[tuple[int, Chosen, Integers | int]]:
        """The classes of a task: number, samples that it is in, and its pixels [n, 1, H, W], 1 where it is, else 0."""
        count = self.class_counts[self.problem.crafted_for.names.index(name)]
        if name == "segmentation":
            masks = self.problem.masks(ids)
            for number in range(count):
                inside = masks == number
                yield number, inside.any(axis=(1, 2)), inside[:, None].astype(np.int64)
            return
        several = name == "labels"
        holds = (
            self.problem.label_values(ids) == 1 if several else self.classes(shard, ids)[:, None] == np.arange(count)
        )
        yield from ((number, holds[:, number], 1) for number in range(count))

    def _of_class(self, number: int, chosen: Chosen, clean: Integers, ids: Ids) -> Integers:
        """The deltas of some samples, as if all of them were of one class, and 0 for the others."""
        delta = np.zeros(clean.shape, np.int64)
        if chosen.any():
            delta[chosen] = self.perturb(clean[chosen], np.full(int(chosen.sum()), number, np.int64), ids[chosen])
        return delta

    def within(self, delta: Integers, clean: Integers) -> Integers:
        """What is left of deltas [n, C, H, W] of any size in the budget and in the range of levels."""
        source = self.problem.source
        bound = int(self.budget(self.config, source.shape, source.levels).epsilon)
        return in_range(np.clip(delta, -bound, bound), clean, source.levels)

    def classes(self, shard: int, ids: Ids) -> Labels:
        """What stands for the labels of a shard's samples int64 [n]; by default, their labels."""
        return self.problem.classes(ids)

    def clean(self, shard: int, ids: Ids) -> Integers:
        """Samples of a shard [n, C, H, W]."""
        samples: Integers = self.problem.reader.take(shard, ids).cpu().numpy()
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
        if self.config.flat < 1:
            delta = delta * budget_shares(clean, self.config.flat, length / math.sqrt(math.prod(source.shape)))
        delta = delta * (length / np.sqrt(np.square(delta).sum(axis=(1, 2, 3), keepdims=True)))
        return to_levels_of_length(delta, clean, source.levels, length)

    def within(self, delta: Integers, clean: Integers) -> Integers:
        """See `SampleWise.within`; only deltas that are too long are shortened."""
        source = self.problem.source
        length = self.budget(self.config, source.shape, source.levels).epsilon
        lengths = np.sqrt(np.square(delta.astype(np.float64)).sum(axis=(1, 2, 3), keepdims=True))
        return to_levels_of_length(delta * np.minimum(1, length / np.maximum(lengths, 1)), clean, source.levels, length)
