"""How the ranks that train one network share out a batch."""

from __future__ import annotations

import numpy as np

from hpcule.data.source import Ids
from hpcule.world.group import World


def is_small(batch: int, world: World) -> bool:
    """Whether a batch of that size leaves a rank fewer than two samples, of which BatchNorm has no variance."""
    return batch < 2 * world.size


def rank_shares(batch: Ids, world: World) -> list[Ids]:
    """Each rank's samples of a batch.

    They are parts of nearly equal size, except of a small batch, such as an epoch's last: that one all ranks take
    whole, and their gradients, which are the same, are averaged like others.
    """
    if is_small(len(batch), world):
        return [batch] * world.size
    return np.array_split(batch, world.size)
