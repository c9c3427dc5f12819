"""Adam on one delta a sample, along a gradient that is given for the surrogate's features.

Deltas and moments stay with the rank that owns their shard, and nothing is sent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hpcule.craft.method import Event, Problem, Saved, ShardResult, Step, finite
from hpcule.craft.parts.levels import local_budget, published, to_levels
from hpcule.craft.parts.surrogate import features
from hpcule.data.source import Ids

BETAS, TINY = (0.9, 0.999), 1e-8
"""Adam's defaults (Kingma and Ba, arXiv 1412.6980)."""


@dataclass
class _Shard:
    """A shard's deltas and moments in units of [0, 1], float32 [n, C, H, W], in main memory."""

    delta: Tensor
    mean: Tensor
    square: Tensor
    """Running means of the gradient and of its square."""
    moved: int = 0
    """Number of steps made."""


class Ascent:
    """The deltas of own shards.

    Args:
        problem: samples and ranks.
        epsilon: budget in levels.
        step_size: Adam's learning rate in levels.
        flat: share of the budget where an image is flat; see `local_budget`.
    """

    def __init__(self, problem: Problem, epsilon: float, step_size: float, flat: float) -> None:
        self.problem = problem
        self.epsilon = epsilon
        self.flat = flat
        self.levels = problem.source.levels
        self.rate = step_size / self.levels
        sizes = {shard: (problem.partition.range(shard)[1], *problem.source.shape) for shard in problem.owned}
        self._shards = {
            shard: _Shard(torch.zeros(size), torch.zeros(size), torch.zeros(size)) for shard, size in sizes.items()
        }

    def published(self, shard: int, ids: Ids) -> Tensor:
        """Samples of an own shard as they would be published now: on the grid, [n, C, H, W] in [0, 1]."""
        rows = torch.from_numpy(ids - self.problem.partition.range(shard)[0])
        clean = self.problem.reader.take(shard, ids).to(self.problem.world.device).float()
        delta = self._shards[shard].delta[rows].to(clean.device)
        return published(delta, clean, self.levels, self.epsilon).div_(self.levels)

    def features(self, frozen: nn.Module, shard: int) -> Tensor:
        """Features of an own shard as it would be published now, float32 [n, D], on the device."""
        with torch.no_grad():
            return torch.cat([features(frozen, self.published(shard, tile)) for tile, _ in self._tiles(shard)])

    def sweep(self, frozen: nn.Module, gradients: Mapping[int, Tensor], number: int) -> Iterator[Event]:
        """Step `number`, counted from 0, of own shards; goes on where an interrupted one was.

        Args:
            frozen: the surrogate.
            gradients: of what is to grow, with respect to each own shard's features [n, D].
            number: how many steps there were before.
        """
        owned = self.problem.owned
        for turn in range(self.problem.rounds):
            if turn < len(owned) and self._shards[owned[turn]].moved == number:
                self._move(frozen, owned[turn], gradients[owned[turn]])
            yield Step("noise", turn + 1, self.problem.rounds)

    def results(self) -> Iterator[Event]:
        """Deltas of own shards, on the grid."""
        for shard, part in self._shards.items():
            if shard not in self.problem.done:
                clean = self.problem.reader.take(shard, self.problem.partition.ids(shard))
                yield ShardResult(shard, delta=to_levels(part.delta, clean, self.levels, self.epsilon, self.flat))

    def parts(self) -> dict[str, Mapping[str, object]]:
        """Deltas and moments of own shards."""
        return {f"shard-{shard:05d}": vars(part) for shard, part in self._shards.items()}

    def restore(self, saved: Saved) -> None:
        """Load own shards, whoever wrote them."""
        self._shards = {shard: _Shard(**saved.load(f"shard-{shard:05d}")) for shard in self._shards}

    def _tiles(self, shard: int) -> Iterator[tuple[Ids, slice]]:
        ids = self.problem.partition.ids(shard)
        for tile in self.problem.tiles(ids):
            yield ids[tile], tile

    def _move(self, frozen: nn.Module, shard: int, gradient: Tensor) -> None:
        part = self._shards[shard]
        part.moved += 1
        for ids, rows in self._tiles(shard):
            leaf = self.published(shard, ids).requires_grad_()
            (pixels,) = torch.autograd.grad(features(frozen, leaf), leaf, gradient[rows])
            step = self._adam(part, rows, finite(pixels).cpu())
            clean = self.problem.reader.take(shard, ids).cpu()
            budget = local_budget(clean, self.levels, self.epsilon, self.flat)
            clean = clean.float().div_(self.levels)
            delta = part.delta[rows].add_(step).clamp_(-budget, budget)
            delta.add_(clean).clamp_(0, 1).sub_(clean)

    def _adam(self, part: _Shard, rows: slice, gradient: Tensor) -> Tensor:
        """The step of some samples; part.moved counts it already."""
        first, second = BETAS
        mean = part.mean[rows].lerp_(gradient, 1 - first)
        square = part.square[rows].mul_(second).addcmul_(gradient, gradient, value=1 - second)
        root = (square / (1 - second**part.moved)).sqrt_().add_(TINY)
        return (mean / root).mul_(self.rate / (1 - first**part.moved))
