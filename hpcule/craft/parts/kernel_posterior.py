"""The Bayes error as a kernel sees it: its estimate from features that are spread over ranks, and the gradient.

With features divided by their largest magnitude m and by the bandwidth, u = f / (m bandwidth), and sums over all
samples j other than i,

    k_ij = exp(-|u_i - u_j|^2 / 2),   Z_i = sum_j k_ij,   q_i(c) = sum_{j: y_j = c} k_ij / Z_i
    beta = mean of 1 - max_c q_i(c)

which is the leave-one-out posterior of Nadaraya and Watson. With c_i = argmax_c q_i(c), the gradient of N beta is

    G_i = sum_j w_ij (u_i - u_j),   w_ij = k_ij (a_ij + a_ji),   a_ij = ([y_j = c_i] - q_i(c_i)) / Z_i

and so for a block of samples i two products with matrices of features: one for k, and w U for the gradient. Each rank
makes the sums of its own samples i whole, while all samples j pass by, tile by tile in the order of their ids. So no
sum travels, and its order does not know the number of ranks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from hpcule.craft.method import Problem, finite
from hpcule.world.precision import without_tf32

ROWS, COLUMNS = 256, 2048
"""Samples i and j of a block, which stays near a core. Blocks are cut inside of shards."""
TINY = 1e-8
"""Added to m and to Z: a sample without a neighbour counts as an error."""


@dataclass
class _Shard:
    """What is known of the samples of an own shard."""

    first: int
    labels: Tensor
    features: Tensor
    """u [n, D]."""
    masses: Tensor
    """The sum of k over the samples of each class [n, K]."""
    pull: Tensor
    """G [n, D]."""
    facts: Tensor = field(default_factory=lambda: torch.empty(0))
    """c, q(c) and 1 / Z [n, 3]; c as float32, which is exact."""

    def blocks(self) -> Iterator[slice]:
        """The rows of a block."""
        for start in range(0, len(self.labels), ROWS):
            yield slice(start, min(start + ROWS, len(self.labels)))


class KernelPosterior:
    """All ranks call the same in the same order: `count` and `estimate`, then `follow` and `gradients`.

    Args:
        features: of own shards, float32 [n, D], on the device.
        problem: partition, labels and ranks.
        bandwidth: of the kernel, in units of the largest magnitude of a feature.

    Raises:
        HpculeError: a feature is not finite.
    """

    def __init__(self, features: Mapping[int, Tensor], problem: Problem, bandwidth: float) -> None:
        self.problem = problem
        self._raw = features
        peaks = self._gathered({shard: float(part.abs().amax()) for shard, part in features.items()})
        finite(torch.tensor(list(peaks.values())))
        self._peak = max(peaks.values())
        self._peak_shard = min(shard for shard, peak in peaks.items() if peak == self._peak)
        self._factor = 1 / ((self._peak + TINY) * bandwidth)
        self._own = {shard: self._begin(shard, part) for shard, part in features.items()}

    def count(self, shard: int) -> None:
        """Let the samples of a shard pass by, and add their kernels to the masses of their classes; any rank's shard,
        each of them once."""
        own = self._own.get(shard)
        for first, labels, columns in self._tiles(shard, own.features if own else None):
            one_hot = functional.one_hot(labels, self.problem.source.class_count).float()
            for part in self._own.values():
                for block in part.blocks():
                    kernel = _kernel(part.features[block], columns, part.first + block.start - first)
                    part.masses[block].addmm_(kernel, one_hot)

    def estimate(self) -> float:
        """beta, once all shards are counted."""
        errors = {}
        for shard, part in self._own.items():
            normaliser = part.masses.sum(1) + TINY
            largest, label = part.masses.max(1)
            part.facts = torch.stack([label.float(), largest / normaliser, 1 / normaliser], dim=1)
            errors[shard] = float((1 - part.facts[:, 1]).double().sum())
        return math.fsum(self._gathered(errors).values()) / len(self.problem.source)

    def follow(self, shard: int) -> None:
        """Let the samples of a shard pass by once more, after `estimate`, and add what they do to the gradient."""
        own = self._own.get(shard)
        for first, labels, tile in self._tiles(shard, torch.cat([own.features, own.facts], 1) if own else None):
            columns, facts = tile[:, :-3], tile[:, -3:]
            for part in self._own.values():
                for block in part.blocks():
                    rows = part.features[block]
                    weights = _toward(part.facts[block], labels)
                    weights += _toward(facts, part.labels[block]).t()
                    weights *= _kernel(rows, columns, part.first + block.start - first)
                    part.pull[block].addcmul_(weights.sum(1, keepdim=True), rows).addmm_(weights, columns, alpha=-1)

    def gradients(self) -> dict[int, Tensor]:
        """The gradient of N beta [n, D] with respect to the features that were given, of own shards.

        The features' largest magnitude m depends on a single one of them, which takes the gradient through m: the
        first in the order of ids.
        """
        found = {shard: part.pull * self._factor for shard, part in self._own.items()}
        along = {shard: float((part.pull * part.features).double().sum()) for shard, part in self._own.items()}
        through_peak = -math.fsum(self._gathered(along).values()) / (self._peak + TINY)
        if self._peak_shard in found:
            raw = self._raw[self._peak_shard].flatten()
            place = int((raw.abs() == self._peak).nonzero()[0])
            found[self._peak_shard].view(-1)[place] += through_peak * float(raw[place].sign())
        return found

    def _begin(self, shard: int, features: Tensor) -> _Shard:
        first, count = self.problem.partition.range(shard)
        masses = features.new_zeros(count, self.problem.source.class_count)
        return _Shard(first, self._labels(first, count), features * self._factor, masses, torch.zeros_like(features))

    def _labels(self, first: int, count: int) -> Tensor:
        return torch.from_numpy(self.problem.classes(slice(first, first + count))).to(self.problem.world.device)

    def _tiles(self, shard: int, own: Tensor | None) -> Iterator[tuple[int, Tensor, Tensor]]:
        """First id, labels and rows of each tile of a shard, from the rank that has them."""
        world, (first, count) = self.problem.world, self.problem.partition.range(shard)
        some = next(iter(self._own.values()))
        width = some.features.shape[1] + some.facts.shape[-1] if own is None else own.shape[1]
        for start in range(0, count, COLUMNS):
            rows = min(COLUMNS, count - start)
            tile = some.features.new_empty(rows, width) if own is None else own[start : start + rows]
            yield first + start, self._labels(first + start, rows), world.broadcast(tile, shard % world.size)

    def _gathered(self, own: dict[int, float]) -> dict[int, float]:
        """All shards' numbers, in the order of the shards."""
        parts = self.problem.world.gather(own)
        return dict(sorted(item for part in parts for item in part.items()))


def _kernel(rows: Tensor, columns: Tensor, offset: int) -> Tensor:
    """k [R, C] of samples i and j, 0 where they are the same: column number = row number + offset."""
    # A squared distance is a difference of numbers that may be a thousand times as large.
    with without_tf32():
        exponents = rows @ columns.t()
    exponents -= rows.square().sum(1, keepdim=True) / 2
    exponents -= columns.square().sum(1) / 2
    kernel = exponents.clamp_(max=0).exp_()
    if -len(rows) < offset < len(columns):
        kernel.diagonal(offset).zero_()
    return kernel


def _toward(facts: Tensor, labels: Tensor) -> Tensor:
    """a [R, C] from the facts [R, 3] of samples i and the labels [C] of samples j."""
    return (facts[:, :1] == labels).float().sub_(facts[:, 1:2]).mul_(facts[:, 2:])
