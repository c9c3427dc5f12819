"""Samples of a partitioned source as tensors on a device, kept there as integers where they fit a stated limit."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from hpcule.data.partition import Partition
from hpcule.data.schedule import Ghost
from hpcule.data.source import Ids, Samples, Source
from hpcule.data.upload import Upload, Uploads
from hpcule.data.working import WorkingFile, working_file

HOST = torch.device("cpu")


class Reader:
    """Reads shards, and keeps them on the device while they fit `limit` bytes.

    The rest is read again each time, from a working file where the source has to decode it, and goes to the device
    while that computes.
    """

    def __init__(self, source: Source, partition: Partition, limit: int, device: torch.device = HOST) -> None:
        self.source = source
        self.partition = partition
        self._limit = limit
        self._kept: dict[int, Tensor] = {}
        self._expected: dict[bytes, Future[Upload]] = {}
        self._uploads = Uploads(device)

    def shard(self, shard: int) -> Tensor:
        """All samples of a shard [n, C, H, W], uint8, or int32 for 16-bit samples."""
        if shard in self._kept:
            return self._kept[shard]
        ids = self.partition.ids(shard)
        if not self._fits(shard):
            return self._read(ids).arrived()
        samples = self._uploads.begin(to_tensor(self.source.read(ids))).arrived()
        self._limit -= samples.numel() * samples.element_size()
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
            rows = torch.from_numpy(places).to(samples.device)
            return samples.flatten(1).index_select(0, rows).view(-1, *self.source.shape)
        expected = self._expected.pop(ids.tobytes(), None)
        return (self._read(ids) if expected is None else expected.result()).arrived()

    def expect(self, ghost: Ghost) -> None:
        """Read a ghost in the background, unless it is in memory: it will be taken soon, and once."""
        if ghost.shard not in self._kept and not self._fits(ghost.shard):
            self._expected[ghost.ids.tobytes()] = self._thread.submit(self._read, ghost.ids)

    @cached_property
    def _thread(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(1, "read-ahead")

    @cached_property
    def _working(self) -> WorkingFile | Source:
        return working_file(self.source) if self.source.decodes else self.source

    def _read(self, ids: Ids) -> Upload:
        return self._uploads.begin(to_tensor(self._working.read(ids)))

    def _fits(self, shard: int) -> bool:
        _, count = self.partition.range(shard)
        channels, height, width = self.source.shape
        item = 1 if self.source.levels == 255 else 4
        return count * channels * height * width * item <= self._limit


def to_tensor(samples: Samples) -> Tensor:
    """uint8, or int32 for 16-bit samples."""
    # torch has few operators for uint16.
    return torch.from_numpy(samples if samples.dtype == np.uint8 else samples.astype(np.int32))
