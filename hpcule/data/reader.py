"""Samples of a partitioned source as tensors, kept in memory as integers where they fit a stated limit."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from hpcule.data.partition import Partition
from hpcule.data.source import Ids, Source


class Reader:
    """Reads shards, and remembers them while they fit `limit` bytes; the rest is read anew each time."""

    def __init__(self, source: Source, partition: Partition, limit: int) -> None:
        self.source = source
        self.partition = partition
        self._limit = limit
        self._kept: dict[int, Tensor] = {}

    def shard(self, shard: int) -> Tensor:
        """All samples of a shard [n, C, H, W], uint8, or int32 for 16-bit samples."""
        if shard in self._kept:
            return self._kept[shard]
        samples = self._read(self.partition.ids(shard))
        size = samples.numel() * samples.element_size()
        if size <= self._limit:
            self._limit -= size
            self._kept[shard] = samples
        return samples

    def take(self, shard: int, ids: Ids) -> Tensor:
        """Samples of one shard by id [len(ids), C, H, W]; do not change them in place."""
        if shard in self._kept or self._fits(shard):
            first, _ = self.partition.range(shard)
            samples, places = self.shard(shard), ids - first
            start, stop = int(places[0]), int(places[-1]) + 1
            if stop - start == len(places) and bool((places[1:] > places[:-1]).all()):
                return samples[start:stop]
            return samples.flatten(1).index_select(0, torch.from_numpy(places)).view(-1, *self.source.shape)
        return self._read(ids)

    def _read(self, ids: Ids) -> Tensor:
        samples = self.source.read(ids)
        # torch has few operators for uint16.
        return torch.from_numpy(samples if samples.dtype == np.uint8 else samples.astype(np.int32))

    def _fits(self, shard: int) -> bool:
        _, count = self.partition.range(shard)
        channels, height, width = self.source.shape
        item = 1 if self.source.levels == 255 else 4
        return count * channels * height * width * item <= self._limit
