"""Cutting ids 0..N-1 into V contiguous shards, and dealing whole shards out to ranks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from hpcule.config.errors import UsageError
from hpcule.data.source import Ids

SHARD_BYTES = 256 * 2**20
LEAST_SAMPLES = 32


@dataclass(frozen=True)
class Partition:
    """V contiguous ranges of nearly equal length; part of the result, never of the workers."""

    n: int
    count: int

    def range(self, shard: int) -> tuple[int, int]:
        """First id and number of samples of a shard."""
        first = shard * self.n // self.count
        return first, (shard + 1) * self.n // self.count - first

    @property
    def sizes(self) -> list[int]:
        """Number of samples of each shard."""
        return [self.range(shard)[1] for shard in range(self.count)]

    def ids(self, shard: int) -> Ids:
        """The ids of a shard, ascending."""
        first, count = self.range(shard)
        return np.arange(first, first + count, dtype=np.int64)

    def owned(self, rank: int, size: int) -> list[int]:
        """The shards of a rank. Dealt like cards, so that a batch drawn round-robin over the shards is spread evenly
        over any number of ranks."""
        return list(range(rank, self.count, size))

    def rounds(self, size: int) -> int:
        """The largest number of shards that a rank of a world of `size` owns."""
        return math.ceil(self.count / size)


def partition(n: int, sample_bytes: int, wanted: int | None, workers: int) -> Partition:
    """The partition of n samples: `wanted` shards, or max(1, min(n // 32, max(64, ceil(bytes / 256 MiB)))).

    Raises:
        UsageError: more shards than samples, or more workers than shards.
    """
    default = max(1, min(n // LEAST_SAMPLES, max(64, math.ceil(n * sample_bytes / SHARD_BYTES))))
    count = default if wanted is None else wanted
    if not 1 <= count <= n:
        raise UsageError(f"store.shards={count}: valid are 1 to {n}, the number of samples")
    if workers > count:
        raise UsageError(
            f"{workers} workers for {count} shards: a worker owns whole shards; "
            f"use at most {count} workers, or --set store.shards={min(n, workers)}"
        )
    return Partition(n, count)
