"""How the ranks that train one network share out a batch."""

from __future__ import annotations

import numpy as np

from hpcule.config.errors import UsageError
from hpcule.data.source import Ids
from hpcule.world.group import World


def check_batch_for(workers: int, batch: int) -> None:
    """Refuse a victim's batch that is too small for the number of ranks that train it.

    Raises:
        UsageError: a rank would have fewer than two samples.
    """
    if is_small(batch, workers):
        raise UsageError(f"victim.batch={batch} is too small for {workers} workers: at least {2 * workers}")


def is_small(batch: int, workers: int) -> bool:
    """Whether a batch of that size leaves a rank fewer than two samples, of which BatchNorm has no variance."""
    return batch < 2 * workers


def rank_shares(batch: Ids, world: World) -> list[Ids]:
    """Each rank's samples of a batch.

    They are parts of nearly equal size, except of a small batch, such as an epoch's last: that one all ranks take
    whole, and their gradients, which are the same, are averaged like others.
    """
    if is_small(len(batch), world.size):
        return [batch] * world.size
    return np.array_split(batch, world.size)
