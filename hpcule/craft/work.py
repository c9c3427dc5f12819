"""What a craft has to do, counted before it runs: for any number of samples, shards and workers.

Counted is the busiest rank, since the others wait for it. Shards are dealt to ranks like cards, and a batch is a row of
ghosts of consecutive shards; so of a batch of G ghosts, a number that need not be whole, the busiest of W ranks has
floor(G / W) and up to one of those that are left over. That is exact where W divides the number of shards and batches
begin with whole ghosts, and off by up to a ghost a batch where they do not.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

from hpcule.data.schedule import ghost_sizes


def tile_rows(device: str) -> int:
    """Number of samples that a frozen network processes together on a device of that type. Its statistics are fixed, so
    the number is no part of the result. On a CPU more were slower; fewer would leave a GPU waiting."""
    return 64 if device == "cpu" else 1024


@dataclass(frozen=True, kw_only=True)
class Extent:
    """How large a craft is: all that its cost depends on besides the method's settings."""

    samples: int
    shards: int
    shape: tuple[int, int, int]
    classes: int
    levels: int
    workers: int
    exact: bool = False
    """Sums are of int64, not of float32."""
    device: str = "cpu"
    """Type of the device: "cpu" or "cuda"."""

    @property
    def values(self) -> int:
        """Values of a sample."""
        return math.prod(self.shape)

    @property
    def own_shards(self) -> int:
        """Shards of the rank that has most."""
        return -(-self.shards // self.workers)

    @property
    def own_samples(self) -> float:
        """Samples of the rank that has most shards."""
        return self.own_shards * self.samples / self.shards

    @property
    def addend(self) -> int:
        """Bytes of a value in a sum over ranks."""
        return 8 if self.exact else 4

    def tiles(self, rows: int | None = None) -> int:
        """Parts of at most `rows` samples that the busiest rank cuts its shards into; None: as for a frozen network."""
        return self.own_shards * math.ceil(self.samples / self.shards / (rows or tile_rows(self.device)))


@dataclass(frozen=True, kw_only=True)
class Phase:
    """All that a run does of one stage, on its busiest rank."""

    stage: str
    """Name of the stage in the journal."""
    marks: int
    """Lines in the journal; after each one all ranks agree whether to go on."""
    passes: float
    """Samples that go through the model, each as often as it does."""
    calls: float
    """What is done as often whatever the number of samples: updates of the model, or calls of it."""
    starts: int = 1
    """How often the stage starts again, with what is built again then."""
    sums: int = 0
    """Sums over ranks."""
    sum_bytes: float = 0.0
    """Mean size of one."""
    ranks: int = 1
    """Number of ranks that take part in a sum."""
    busy: int = 1
    """Ranks that have something to do."""
    kept: bool = False
    """A study does it once, for all crafts with the same settings."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """A whole run of a method."""

    phases: tuple[Phase, ...]
    memory: float
    """Bytes that grow with the number of samples, of the busiest rank, in addition to the samples themselves."""
    checkpoint: float
    """Bytes of one checkpoint, of all ranks together."""
    shared: int = 0
    """Deltas that samples share; 0 where each has its own."""
    notes: tuple[str, ...] = ()
    """What could not be known beforehand."""


@dataclass(frozen=True)
class Walk:
    """An epoch of a `Schedule` over shards of nearly equal size."""

    samples: int
    batch: int
    ghosts: int
    """Ghosts before the ends of batches cut them."""
    cuts: int
    """How often a batch ends inside of a ghost, where the first shard begins the epoch."""

    @classmethod
    def of(cls, samples: int, shards: int, ghost: int, batch: int) -> Walk:
        """The walk through `samples` samples in `shards` shards."""
        size = samples // shards
        larger = np.diff(np.arange(shards + 1) * samples // shards) > size
        few, many = ghost_sizes(size, ghost), ghost_sizes(size + 1, ghost)
        layers = itertools.zip_longest(few, many, fillvalue=0)
        line = np.concatenate([np.where(larger, most, least) for least, most in layers])
        ends = np.cumsum(line[line > 0])
        meet = int((ends[:-1] % batch == 0).sum())
        return cls(samples, batch, len(ends), -(-samples // batch) - 1 - meet)

    @property
    def batches(self) -> int:
        """Batches an epoch."""
        return -(-self.samples // self.batch)

    @property
    def mean_ghost(self) -> float:
        """Mean number of samples in a ghost."""
        return self.samples / self.ghosts

    @property
    def ghosts_a_batch(self) -> int:
        """Ghosts that make a batch, the last of them perhaps cut: at most as many ranks have work in a step."""
        return -(-min(self.batch, self.samples) * self.ghosts // self.samples)

    def busiest(self, workers: int) -> float:
        """Samples that are processed one after another in an epoch, each batch shared by `workers` ranks."""
        full, rest = divmod(self.samples, self.batch)
        return full * self._busiest(self.batch, workers) + self._busiest(rest, workers)

    def _busiest(self, batch: int, workers: int) -> float:
        each, over = divmod(batch / self.mean_ghost, workers)
        return (each + min(1.0, over)) * self.mean_ghost
