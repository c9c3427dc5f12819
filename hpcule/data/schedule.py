"""Who sees which samples when: ghosts and global batches, the same for every number of ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from hpcule.config.errors import UsageError
from hpcule.data.source import Ids
from hpcule.world.keyed import key, order


@dataclass(frozen=True)
class Ghost:
    """A few samples of one shard, at least one: micro-batch, BatchNorm group, and unit of reduction."""

    shard: int
    ids: Ids


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
    return sum(len(ghost.ids) for ghost in batch)


def ghost_sizes(samples: int, ghost: int) -> list[int]:
    """Sizes of the ghosts of a shard with that number of samples: nearly equal, and at most `ghost`."""
    count = -(-samples // ghost)
    return [samples // count + (number < samples % count) for number in range(count)]


@dataclass
class Schedule:
    """Global batches as ordered lists of ghosts, drawn round-robin over the shards.

    Every batch has the number of samples asked for, except the last of an epoch, which has what is left: no sample is
    padded or dropped. A ghost is cut where a batch ends, and its rest begins the next batch.

    Attributes:
        members: the ids that take part, ascending, shard by shard; a shard may have none.
        ghost: largest number of samples in a ghost; each shard is cut into ceil(n / ghost) ghosts of nearly equal size.
        batch: number of samples in a global batch.
        seed: with `purpose`, the key of the shuffling; None keeps the order of ids.
    """

    members: Sequence[Ids]
    ghost: int
    batch: int
    seed: int | None
    purpose: str
    _latest: tuple[int, list[list[Ghost]]] | None = field(default=None, init=False)

    def at(self, step: int) -> list[Ghost]:
        """The global batch of a step that counts through the epochs."""
        epoch, number = divmod(step, self.steps)
        if self._latest is None or self._latest[0] != epoch:
            self._latest = epoch, self.epoch(epoch)
        return self._latest[1][number]

    def epoch(self, number: int) -> list[list[Ghost]]:
        """The batches of an epoch, in order."""
        columns = [self._ghosts(shard, number) for shard in range(len(self.members))]
        turn = key(self.seed, self.purpose, number, "turn") % len(columns) if self.seed is not None else 0
        columns = columns[turn:] + columns[:turn]
        layers = max(len(column) for column in columns)
        line = [column[layer] for layer in range(layers) for column in columns if layer < len(column)]
        return _batches(line, self.batch)

    @property
    def steps(self) -> int:
        """Batches an epoch."""
        return -(-sum(map(len, self.members)) // self.batch)

    def _ghosts(self, shard: int, epoch: int) -> list[Ghost]:
        ids = self.members[shard]
        if not len(ids):
            return []
        if self.seed is not None:
            ids = order(key(self.seed, self.purpose, epoch), ids)
        ends = np.cumsum(ghost_sizes(len(ids), self.ghost))
        return [Ghost(shard, part) for part in np.split(ids, ends[:-1])]


def _batches(line: Sequence[Ghost], size: int) -> list[list[Ghost]]:
    """Cut a line of ghosts after every `size` samples."""
    batches: list[list[Ghost]] = []
    free = 0
    for ghost in line:
        ids = ghost.ids
        while len(ids):
            if not free:
                batches.append([])
                free = size
            part, ids = ids[:free], ids[free:]
            batches[-1].append(Ghost(ghost.shard, part))
            free -= len(part)
    return batches
