"""K-means over features that stay with their ranks; the result does not depend on how many ranks there are.

Sums travel as fixed-point integers, whose addition is associative. Initial centres by k-means++ (Arthur and
Vassilvitskii 2007) with draws keyed by the seed; Lloyd's iteration with scikit-learn's stopping rule (tolerance 1e-4
times the mean variance of a feature, or no assignment changes, at most 300 iterations); an empty cluster takes over
the sample that is farthest from its centre. Of several starts, the one counts that ends with the least inertia.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from hpcule.config.errors import DataError
from hpcule.world.group import World
from hpcule.world.keyed import key, uniform

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Features = Mapping[int, Floats]
"""Own shards' features, float64 [n, D]."""

TOLERANCE = 1e-4
ITERATIONS = 300
STARTS = 8
"""A single start often ends in a poor local minimum."""


@dataclass(frozen=True)
class Clusters:
    """Centres float64 [p, D], largest cluster first, and for each own shard its samples' cluster int64 [n]."""

    centers: Floats
    assignment: dict[int, Integers]
    sizes: Integers


def kmeans(features: Features, first_ids: Mapping[int, int], clusters: int, world: World, seed: int) -> Clusters:
    """Cluster all ranks' features.

    Args:
        features: own shards' features, float64 [n, D].
        first_ids: first sample id of each own shard.
        clusters: p.
        world: all ranks that hold features.
        seed: of the initial centres.

    Raises:
        DataError: fewer distinct samples than clusters, or features that are not finite.
    """
    lloyd = _lloyd(features, first_ids, world)
    found = [lloyd.iterate(lloyd.plus_plus(clusters, key(seed, "start", number))) for number in range(STARTS)]
    return lloyd.canonical(min(found, key=lloyd.inertia))


def means(features: Features, first_ids: Mapping[int, int], clusters: Clusters, world: World) -> Floats:
    """Means float64 [p, D] of other features of the same samples over each cluster; see `kmeans`."""
    lloyd = _lloyd(features, first_ids, world)
    unused = {shard: np.zeros(len(part)) for shard, part in features.items()}
    width = int(world.maximum([max((part.shape[1] for part in features.values()), default=0)])[0])
    return lloyd.means(clusters.assignment, unused, np.zeros((len(clusters.centers), width)))


def _lloyd(features: Features, first_ids: Mapping[int, int], world: World) -> _Lloyd:
    peaks = [float(np.abs(part).max()) for part in features.values()]
    # A maximum keeps infinity but may lose NaN.
    (largest,) = world.maximum([max(peaks, default=0.0) if np.isfinite(peaks).all() else math.inf])
    if not math.isfinite(largest):
        raise DataError("the encoder's features are not finite")
    total = sum(part for part in world.gather(sum(len(part) for part in features.values())))
    return _Lloyd(features, first_ids, world, total, largest)


class _Lloyd:
    def __init__(
        self, features: Features, first_ids: Mapping[int, int], world: World, total: int, largest: float
    ) -> None:
        self.features = features
        self.first_ids = first_ids
        self.world = world
        self.total = total
        # The largest power of two with which the sum of all samples' features still fits 62 bits.
        self.bits = 61 - math.ceil(math.log2(total * max(largest, 2.0**-20)))
        self.fixed = {shard: np.rint(np.ldexp(part, self.bits)).astype(np.int64) for shard, part in features.items()}

    def plus_plus(self, clusters: int, seed: int) -> Floats:
        """Centres drawn one by one, each with a probability that grows with the squared distance to the nearest."""
        nearest = {shard: np.ones(len(part)) for shard, part in self.features.items()}
        centers: list[Floats] = []
        for number in range(clusters):
            draw = float(uniform(key(seed, "kmeans", number), np.zeros(1, np.int64), 1)[0, 0])
            center = self._pick(nearest, draw)
            if center is None:
                raise DataError(f"{clusters} clusters asked for, but there are only {number} distinct samples")
            centers.append(center)
            for shard, part in self.features.items():
                distance = np.square(part - center).sum(1)
                nearest[shard] = distance if number == 0 else np.minimum(nearest[shard], distance)
        return np.stack(centers)

    def _pick(self, mass: Mapping[int, Floats], draw: float) -> Floats | None:
        """The sample at which the running mass, in id order, passes `draw` of the whole."""
        own = {shard: float(part.sum()) for shard, part in mass.items()}
        masses = sorted((shard, value) for part in self.world.gather(own) for shard, value in part.items())
        target = draw * math.fsum(value for _, value in masses)
        candidates = [shard for shard, value in masses if value > 0]
        if not candidates:
            return None
        chosen = candidates[-1]
        for shard, value in masses:
            if target < value:
                chosen = shard
                break
            target -= value
        found: Floats | None = None
        if chosen in mass:
            row = min(int(np.searchsorted(np.cumsum(mass[chosen]), target, side="right")), len(mass[chosen]) - 1)
            found = self.features[chosen][row]
        return next(center for center in self.world.gather(found) if center is not None)

    def iterate(self, centers: Floats) -> Floats:
        """Lloyd's iteration until nothing moves."""
        tolerance = TOLERANCE * self._variance()
        previous: dict[int, Integers] = {}
        for _ in range(ITERATIONS):
            assignment, distances = self._assign(centers)
            changed = not previous or any(not np.array_equal(previous[s], part) for s, part in assignment.items())
            (any_changed,) = self.world.maximum([changed])
            if not any_changed:
                return centers
            moved = self.means(assignment, distances, centers)
            shift = float(np.square(moved - centers).sum())
            centers, previous = moved, assignment
            if shift <= tolerance:
                return centers
        return centers

    def inertia(self, centers: Floats) -> float:
        """Sum over all samples of the squared distance to the nearest centre, the same bits on every rank."""
        _, distances = self._assign(centers)
        own = {shard: math.fsum(part) for shard, part in distances.items()}
        return math.fsum(value for part in self.world.gather(own) for value in part.values())

    def canonical(self, centers: Floats) -> Clusters:
        """Number the clusters by size, then by their lowest sample id: the numbering decides UC's targets."""
        assignment, _ = self._assign(centers)
        counts = np.zeros(len(centers), np.int64)
        lowest = np.full(len(centers), -(2.0**62))
        for shard, part in assignment.items():
            counts += np.bincount(part, minlength=len(centers))
            for cluster in np.unique(part):
                sample = self.first_ids[shard] + int(np.argmax(part == cluster))
                lowest[cluster] = max(lowest[cluster], -float(sample))
        counts = self.world.add(torch.from_numpy(counts).to(self.world.device)).cpu().numpy()
        lowest = np.array(self.world.maximum(list(lowest)))
        ranking = sorted(range(len(centers)), key=lambda c: (-counts[c], -lowest[c]))
        number = np.empty(len(centers), np.int64)
        number[ranking] = np.arange(len(centers))
        renamed = {shard: number[part] for shard, part in assignment.items()}
        return Clusters(centers[ranking], renamed, counts[ranking])

    def _assign(self, centers: Floats) -> tuple[dict[int, Integers], dict[int, Floats]]:
        """Nearest centre (the lowest number on ties) and squared distance to it, for own samples."""
        assignment, distances = {}, {}
        norms = np.square(centers).sum(1)
        for shard, part in self.features.items():
            squared = np.square(part).sum(1)[:, None] - 2 * (part @ centers.T) + norms
            assignment[shard] = squared.argmin(1)
            distances[shard] = squared.min(1)
        return assignment, distances

    def means(self, assignment: Mapping[int, Integers], distances: Mapping[int, Floats], centers: Floats) -> Floats:
        """The clusters' new centres; one that is still empty, since it has just given its only sample away, stays."""
        packed = np.zeros((len(centers), centers.shape[1] + 1), np.int64)
        for shard, part in assignment.items():
            np.add.at(packed[:, :-1], part, self.fixed[shard])
            packed[:, -1] += np.bincount(part, minlength=len(centers))
        packed = self.world.add(torch.from_numpy(packed).to(self.world.device)).cpu().numpy()
        self._relocate(packed, assignment, distances)
        means: Floats = np.ldexp(packed[:, :-1] / np.maximum(packed[:, -1:], 1), -self.bits)
        return np.where(packed[:, -1:] > 0, means, centers)

    def _relocate(self, packed: Integers, assignment: Mapping[int, Integers], distances: Mapping[int, Floats]) -> None:
        """Give each empty cluster the farthest sample, and take that sample out of its donor; in place."""
        empty = np.flatnonzero(packed[:, -1] == 0)
        if not len(empty):
            return
        own = []
        for shard, distance in distances.items():
            for row in np.argsort(-distance, kind="stable")[: len(empty)]:
                sample = self.first_ids[shard] + int(row)
                own.append((-float(distance[row]), sample, int(assignment[shard][row]), self.fixed[shard][row]))
        own.sort(key=lambda item: item[:2])
        everyone = sorted(
            (item for part in self.world.gather(own[: len(empty)]) for item in part), key=lambda item: item[:2]
        )
        for cluster, (_, _, donor, sample) in zip(empty, everyone, strict=False):
            packed[donor, :-1] -= sample
            packed[donor, -1] -= 1
            packed[cluster, :-1] = sample
            packed[cluster, -1] = 1

    def _variance(self) -> float:
        """Mean over the features of their variance over all samples."""
        sums = sum((part.sum(0) for part in self.fixed.values()), start=np.zeros(1, np.int64))
        dimension = int(self.world.maximum([len(sums)])[0])
        if len(sums) != dimension:
            sums = np.zeros(dimension, np.int64)
        mean = np.ldexp(self.world.add(torch.from_numpy(sums).to(self.world.device)).cpu().numpy(), -self.bits)
        mean = mean / self.total
        own = {shard: float(np.square(part - mean).sum()) for shard, part in self.features.items()}
        squares = sorted((shard, value) for part in self.world.gather(own) for shard, value in part.items())
        return math.fsum(value for _, value in squares) / self.total / dimension
