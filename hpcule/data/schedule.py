"""Who sees which samples when: ghosts and global batches, the same for every number of ranks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import numpy.typing as npt

from hpcule.config.errors import UsageError
from hpcule.data.partition import Partition
from hpcule.data.source import Ids
from hpcule.world.keyed import key, order

_EPOCHS = 2
"""Epochs whose orders are kept: the present one, and the one that the next batch may begin."""
LINE_BYTES = 16 * _EPOCHS
"""Memory for each ghost of an epoch, on every rank: which shard it is of, and where it lies."""


class Ghost:
    """A few samples of one shard, at least one: micro-batch, BatchNorm group, and unit of reduction.

    Attributes:
        shard: number of the shard.
        size: number of samples.
    """

    def __init__(self, shard: int, ids: Ids) -> None:
        self.shard, self.size = shard, len(ids)
        self._ids = ids

    @property
    def ids(self) -> Ids:
        """The samples [size]. To ask for those of another rank's shard costs this rank the order of that shard."""
        return self._ids


class _PlannedGhost(Ghost):
    """A ghost whose ids are found when they are asked for: a part of its shard in the order of an epoch."""

    def __init__(self, shard: int, start: int, size: int, ordered: Callable[[int], Ids]) -> None:
        self.shard, self.size = shard, size
        self._start, self._ordered = start, ordered

    @property
    def ids(self) -> Ids:
        return self._ordered(self.shard)[self._start : self._start + self.size]


@dataclass(frozen=True)
class _Line:
    """All ghosts of an epoch in their order, one entry each."""

    shards: npt.NDArray[np.int32]
    starts: npt.NDArray[np.int32]
    """First sample of the ghost within its shard's order."""
    ends: npt.NDArray[np.int64]
    """Number of samples up to the end of the ghost."""


def check_batch(name: str, batch: int, samples: int, default: int) -> None:
    """Refuse a batch that was asked for and is larger than the data.

    A default is not refused: of fewer samples a step takes all, and `small_notice` says so.

    Raises:
        UsageError: there are fewer samples.
    """
    if batch > samples and batch != default:
        raise UsageError(f"{name}={batch} is more than the {samples} samples: set it, as in --set {name}={samples}")


def small_notice(name: str, batch: int, samples: int) -> str | None:
    """What a user should know before a step takes fewer samples than a default says."""
    return f"{name}={batch} is more than the {samples} samples: a step takes all of them" if batch > samples else None


def samples_of(batch: Sequence[Ghost]) -> int:
    """Number of samples of a global batch."""
    return sum(ghost.size for ghost in batch)


def ghost_sizes(samples: int, ghost: int) -> list[int]:
    """Sizes of the ghosts of a shard with that number of samples: nearly equal, and at most `ghost`."""
    count = -(-samples // ghost)
    return [samples // count + (number < samples % count) for number in range(count)]


@dataclass
class Schedule:
    """Global batches as ordered lists of ghosts, drawn round-robin over the shards.

    Every batch has the number of samples asked for, except the last of an epoch, which has what is left: no sample is
    padded or dropped. A ghost is cut where a batch ends, and its rest begins the next batch.

    Where the ghosts lie follows from the sizes of the shards; the order of a shard's samples is drawn when the ids of
    one of its ghosts are asked for, by whoever owns it.

    Attributes:
        members: the ids that take part, ascending, shard by shard, or a partition, all of whose ids do; a shard may
            have none.
        ghost: largest number of samples in a ghost; each shard is cut into ceil(n / ghost) ghosts of nearly equal size.
        batch: number of samples in a global batch.
        seed: with `purpose`, the key of the shuffling; None keeps the order of ids.
    """

    members: Sequence[Ids] | Partition
    ghost: int
    batch: int
    seed: int | None
    purpose: str
    _lines: dict[int, _Line] = field(default_factory=dict, init=False)
    """Lines of samples by the shard that begins the epoch."""
    _orders: dict[int, dict[int, Ids]] = field(default_factory=dict, init=False)
    """Orders of a shard's samples by epoch and shard."""

    def __post_init__(self) -> None:
        """Count the samples of each shard."""
        sizes = self.members.sizes if isinstance(self.members, Partition) else [len(ids) for ids in self.members]
        self._sizes = np.array(sizes, np.int64)
        self._samples = int(self._sizes.sum())

    def at(self, step: int) -> list[Ghost]:
        """The global batch of a step that counts through the epochs."""
        return self._batch(*divmod(step, self.steps))

    def epoch(self, number: int) -> list[list[Ghost]]:
        """The batches of an epoch, in order."""
        return [self._batch(number, batch) for batch in range(self.steps)]

    @property
    def steps(self) -> int:
        """Batches an epoch."""
        return -(-self._samples // self.batch)

    def _batch(self, epoch: int, number: int) -> list[Ghost]:
        line, ordered = self._line(epoch), partial(self._ordered, epoch)
        begin = number * self.batch
        end = min(begin + self.batch, self._samples)
        first, last = np.searchsorted(line.ends, [begin, end - 1], side="right").tolist()
        ghosts: list[Ghost] = []
        place = begin
        for entry in range(first, last + 1):
            before, after = (int(line.ends[entry - 1]) if entry else 0), int(line.ends[entry])
            size = min(after, end) - place
            start = int(line.starts[entry]) + place - before
            ghosts.append(_PlannedGhost(int(line.shards[entry]), start, size, ordered))
            place += size
        return ghosts

    def _line(self, epoch: int) -> _Line:
        shards = len(self._sizes)
        turn = key(self.seed, self.purpose, epoch, "turn") % shards if self.seed is not None else 0
        if turn not in self._lines:
            while len(self._lines) >= _EPOCHS:
                del self._lines[next(iter(self._lines))]
            self._lines[turn] = _line(np.roll(np.arange(shards), -turn), self._sizes, self.ghost)
        return self._lines[turn]

    def _ordered(self, epoch: int, shard: int) -> Ids:
        """The ids of a shard in the order of an epoch."""
        if epoch not in self._orders:
            while len(self._orders) >= _EPOCHS:
                del self._orders[next(iter(self._orders))]
            self._orders[epoch] = {}
        orders = self._orders[epoch]
        if shard not in orders:
            ids = self.members.ids(shard) if isinstance(self.members, Partition) else self.members[shard]
            orders[shard] = ids if self.seed is None else order(key(self.seed, self.purpose, epoch), ids)
        return orders[shard]


def _line(turned: npt.NDArray[np.int64], sizes: npt.NDArray[np.int64], ghost: int) -> _Line:
    """Ghosts layer by layer: the first of each shard, the second of each, and so on; shards in the order `turned`."""
    counts = -(-sizes[turned] // ghost)
    shards = np.repeat(turned, counts)
    layers = np.arange(len(shards)) - np.repeat(np.cumsum(counts) - counts, counts)
    entries = np.argsort(layers, kind="stable")
    shards, layers = shards[entries], layers[entries]
    least, larger = np.divmod(sizes[shards], -(-sizes[shards] // ghost))
    starts = layers * least + np.minimum(layers, larger)
    ends = np.cumsum(least + (layers < larger))
    return _Line(shards.astype(np.int32), starts.astype(np.int32), ends)
