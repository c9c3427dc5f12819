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
    """A few samples of one shard: micro-batch, BatchNorm group, and unit of reduction."""

    shard: int
    ids: Ids


def check_batch(name: str, batch: int, samples: int) -> None:
    """Whether there are samples for a batch, of which an epoch has at least one.

    Raises:
        UsageError: there are fewer.
    """
    if batch > samples:
        raise UsageError(f"{name}={batch} is more than the {samples} samples: set it, as in --set {name}={samples}")


def ghosts_in_shard(samples: int, ghost: int) -> int:
    """How many ghosts of about `ghost` samples a shard is cut into."""
    return max(1, round(samples / ghost)) if samples else 0


def ghosts_in_batch(batch: int, ghosts: int, samples: int) -> int:
    """How many of an epoch's ghosts make a batch: by their mean size, which small shards hold down."""
    return max(1, round(batch * ghosts / samples))


@dataclass
class Schedule:
    """Global batches as ordered lists of ghosts, drawn round-robin over the shards.

    Attributes:
        members: the ids that take part, ascending, shard by shard; a shard may have none.
        ghost: approximate number of samples in a ghost; each shard is cut into max(1, round(n / ghost)) ghosts of
            nearly equal size.
        batch: approximate number of samples in a global batch, which consists of whole ghosts. No sample is padded or
            dropped, so an epoch's last batch may be smaller.
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
        size = self.ghosts_a_batch
        return [line[start : start + size] for start in range(0, len(line), size)]

    @property
    def ghosts_a_batch(self) -> int:
        """How many ranks can be busy in a step."""
        return ghosts_in_batch(self.batch, self._ghost_count, sum(map(len, self.members)))

    @property
    def steps(self) -> int:
        """Batches an epoch."""
        return -(-self._ghost_count // self.ghosts_a_batch)

    @property
    def _ghost_count(self) -> int:
        return sum(ghosts_in_shard(len(ids), self.ghost) for ids in self.members)

    def _ghosts(self, shard: int, epoch: int) -> list[Ghost]:
        count = ghosts_in_shard(len(self.members[shard]), self.ghost)
        if not count:
            return []
        ids = self.members[shard]
        if self.seed is not None:
            ids = order(key(self.seed, self.purpose, epoch), ids)
        return [Ghost(shard, part) for part in np.array_split(ids, count)]
