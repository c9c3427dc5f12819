"""Where deltas begin, and what is published of them: on the sample's own grid, within the budget."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hpcule.data.source import Ids
from hpcule.measure.contrast import budget_shares
from hpcule.store.budget import magnitude
from hpcule.world.keyed import uniform


def uniform_start(purpose: int, ids: Ids, shape: Sequence[int], radius: float) -> Tensor:
    """Uniform in [-radius, radius), float32 [n, *shape], on the CPU: each id's is the same on every rank."""
    values = torch.from_numpy(uniform(purpose, ids, prod(shape)))
    return values.view(len(ids), *shape).mul_(2).sub_(1).mul_(radius)


def published(delta: Tensor, clean: Tensor, levels: int, epsilon: float) -> Tensor:
    """The sample that a delta makes, in levels, float32 [n, C, H, W]: delta on the grid and within the budget, the
    sample within the box.

    Args:
        delta: in units of [0, 1], float [n, C, H, W].
        clean: the samples [n, C, H, W] in levels, float32, on the same device.
        levels: largest value of the grid.
        epsilon: L-infinity budget in levels; a fraction of a level cannot be published.
    """
    bound = int(epsilon)
    return (delta * levels).round_().clamp_(-bound, bound).add_(clean).clamp_(0, levels)


def local_budget(clean: Tensor, levels: int, epsilon: float, flat: float) -> Tensor:
    """Largest change of each value in units of [0, 1], [n, 1, H, W]; a single number [] where `flat` is 1.

    Args:
        clean: samples [n, C, H, W] in levels, of any type and place.
        levels: largest value of the grid.
        epsilon: L-infinity budget in levels.
        flat: share of the budget where an image is flat; see `budget_shares`.
    """
    if flat == 1:
        return torch.tensor(epsilon / levels, device=clean.device)
    shares = budget_shares(clean.cpu().numpy(), flat, epsilon)
    return torch.from_numpy(shares).to(clean.device).mul_(int(epsilon) / levels)


def to_levels(
    delta: Tensor, clean: Tensor, levels: int, epsilon: float, flat: float = 1.0
) -> npt.NDArray[np.integer[Any]]:
    """Published minus clean, in levels; arguments as for `published`, but for clean samples of any type and place, and
    for `flat`, as for `local_budget`."""
    clean = clean.to(delta.device).float()  # exact: float32 holds every integer of a 16-bit grid
    if flat < 1:
        budget = local_budget(clean, levels, epsilon, flat)
        delta = delta.clamp(-budget, budget)
    change = published(delta, clean, levels, epsilon).sub_(clean)
    return change.to(torch.int16 if levels == 255 else torch.int32).cpu().numpy()


def to_levels_of_length(
    delta: npt.NDArray[np.floating[Any]], clean: npt.NDArray[np.integer[Any]], levels: int, epsilon: float
) -> npt.NDArray[np.integer[Any]]:
    """Round a delta to the sample's grid and clip the published sample: published minus clean, in levels.

    Rounding may lengthen a delta. One that is too long then is shrunk before it is rounded again, until it is not.

    Args:
        delta: in levels, [n, C, H, W].
        clean: the samples, integers [n, C, H, W].
        levels: largest value of the grid.
        epsilon: L2 budget in levels.
    """
    clean = clean.astype(np.int64)
    scale = np.ones((len(delta), 1, 1, 1))
    while True:
        published = np.clip(clean + np.rint(delta * scale).astype(np.int64), 0, levels)
        change: npt.NDArray[np.int64] = published - clean
        lengths = magnitude(change, "l2")
        if not (lengths > epsilon).any():
            return change
        shrink = np.where(lengths > epsilon, np.minimum(epsilon / np.maximum(lengths, 1), 0.999), 1.0)
        scale *= shrink.reshape(scale.shape)
