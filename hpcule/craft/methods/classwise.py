"""Class-wise random noise: one random pattern a class, added to all of its samples.

The plainest shortcut there is: Huang et al. (ICLR 2021, arXiv 2101.04898) show that it protects, and that random noise
by sample does not. Constant regions and repeated patches are after the sets of Sandoval-Segura et al. (NeurIPS 2023,
arXiv 2305.19254). A method that does no better than this has not earned its cost.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal

import numpy as np

from hpcule.config.ranges import setting
from hpcule.config.run import BoundedConfig, LocalConfig, MethodConfig, TaskConfig
from hpcule.craft.method import Event, Facts, ShardResult, SharedResult, Unit
from hpcule.craft.parts.model_free import Integers, SampleWise, in_range
from hpcule.data.source import Ids, Labels, Source
from hpcule.measure.contrast import budget_shares
from hpcule.world.keyed import bits, key


@dataclass(frozen=True, kw_only=True)
class ClasswiseConfig(BoundedConfig, LocalConfig, TaskConfig):
    """Settings of class-wise noise: its pattern."""

    name: str = "classwise"
    pattern: Literal["uniform", "regions", "patches"] = "uniform"
    """uniform in the budget; regions: squares of one value, -epsilon or epsilon; patches: one such square of uniform
    values, repeated."""
    size: int = setting(8, at_least=1)
    """Pixels along the side of a square."""


class Classwise(SampleWise[ClasswiseConfig]):
    """A random pattern a class."""

    facts: ClassVar[Facts] = Facts(
        title="Class-wise random noise",
        data="images",
        task="classification",
        intent="availability",
        needs_labels=True,
        bounded=True,
        needs_surrogate=False,
        claimed="nothing: it is the baseline of others",
        paper="arXiv 2101.04898",
        cost="no surrogate: one random image a class",
        weaknesses="found by averaging a class; gone with random crops, unless its squares are large; "
        "undone by whatever moves or averages pixels: crops, JPEG, projection",
    )
    config_class: ClassVar[type[MethodConfig]] = ClasswiseConfig

    @classmethod
    def unit(cls, config: ClasswiseConfig) -> Unit:
        """One delta a class, and one a sample where it has several or a mask, or where its budget follows the image."""
        return "class" if config.task.one_label and config.flat == 1 else "sample"

    @classmethod
    def groups(cls, config: ClasswiseConfig, source: Source) -> int:
        """The number of classes, where deltas are shared."""
        return source.class_count if cls.unit(config) == "class" else 0

    @classmethod
    def takes_volumes(cls, config: ClasswiseConfig) -> bool:
        """Whether these settings can craft for volumes: always."""
        return True

    def prepare(self) -> Iterator[Event]:
        """The shared deltas, where they are."""
        if self.unit(self.config) == "class":
            yield SharedResult(self.patterns)

    def answer(self, shard: int) -> ShardResult:
        """The class of each sample of a shard, or its delta."""
        if self.unit(self.config) == "class":
            return ShardResult(shard, group=self.problem.classes(self.problem.partition.ids(shard)))
        return super().answer(shard)

    def perturb(self, clean: Integers, labels: Labels, ids: Ids) -> Integers:
        """The pattern of each sample's class, weaker where the sample is flat."""
        pattern, config = self.patterns[labels], self.config
        if config.flat < 1:
            pattern = np.rint(pattern * budget_shares(clean, config.flat, config.epsilon)).astype(np.int64)
        return in_range(pattern, clean, self.problem.source.levels)

    @cached_property
    def patterns(self) -> Integers:
        """Patterns of all classes in levels [K, C, H, W]."""
        source, config = self.problem.source, self.config
        channels, height, width = source.shape
        classes = np.arange(self.class_count)
        size, bound = config.size, int(config.epsilon)
        rows, columns = -(-height // size), -(-width // size)
        shape = {
            "uniform": (channels, height, width),
            "regions": (channels, rows, columns),
            "patches": (channels, size, size),
        }[config.pattern]
        words = bits(key(self.problem.seed, "classwise", config.pattern), classes, int(np.prod(shape)))
        if config.pattern == "regions":
            signs = np.where(words & np.uint64(1), bound, -bound).reshape(-1, *shape)
            pattern = signs.repeat(size, axis=2).repeat(size, axis=3)
        else:
            values = (words % np.uint64(2 * bound + 1)).astype(np.int64).reshape(-1, *shape) - bound
            pattern = np.tile(values, (1, 1, rows, columns)) if config.pattern == "patches" else values
        return pattern[:, :, :height, :width]
