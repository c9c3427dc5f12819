"""What a craft has to do, counted before it runs, in closed form: for any number of samples, shards and workers.

Counted is the busiest rank, since the others wait for it. Shards are dealt to ranks like cards, and a batch is a row of
ghosts of consecutive shards; so of G ghosts the busiest of W ranks has ceil(G / W). That is exact where W divides the
number of shards, and at most one ghost a batch too few where it does not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from hpcule.data.schedule import ghosts_in_batch, ghosts_in_shard


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
    ghosts: int
    ghosts_a_batch: int

    @classmethod
    def of(cls, samples: int, shards: int, ghost: int, batch: int) -> Walk:
        """The walk through `samples` samples in `shards` shards."""
        size, larger = divmod(samples, shards)
        ghosts = (shards - larger) * ghosts_in_shard(size, ghost) + larger * ghosts_in_shard(size + 1, ghost)
        return cls(samples, ghosts, ghosts_in_batch(batch, ghosts, samples))

    @property
    def batches(self) -> int:
        """Batches an epoch."""
        return -(-self.ghosts // self.ghosts_a_batch)

    @property
    def mean_ghost(self) -> float:
        """Mean number of samples in a ghost."""
        return self.samples / self.ghosts

    def busiest(self, workers: int) -> float:
        """Samples that are processed one after another in an epoch, each batch shared by `workers` ranks."""
        full, rest = divmod(self.ghosts, self.ghosts_a_batch)
        ghosts = full * -(-self.ghosts_a_batch // workers) + -(-rest // workers)
        return ghosts * self.mean_ghost
