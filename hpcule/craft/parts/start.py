"""Where deltas begin."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from hpcule.data.source import Ids
from hpcule.world.keyed import uniform


def uniform_start(purpose: int, ids: Ids, shape: Sequence[int], radius: float) -> Tensor:
    """Uniform in [-radius, radius), float32 [n, *shape], on the CPU: each id's is the same on every rank."""
    values = torch.from_numpy(uniform(purpose, ids, prod(shape)))
    return values.view(len(ids), *shape).mul_(2).sub_(1).mul_(radius)
