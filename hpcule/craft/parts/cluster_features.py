"""Clusters by what one size of the samples shows, and their centres as an encoder of another size sees them."""

from __future__ import annotations

from dataclasses import replace

from hpcule.craft.method import Problem
from hpcule.craft.parts.encoded import Encoded
from hpcule.craft.parts.kmeans import Clusters, Floats, kmeans, means
from hpcule.craft.work import Extent, Phase


class ClusterFeatures:
    """Features of own shards, gathered one by one, and the clusters of all ranks' features.

    Small inputs cost an encoder much of what distinguishes clusters, and large ones make every step of a craft slow:
    the clusters may come from a larger input than the one that deltas are crafted for. Centres are always those of the
    encoder that crafts, since its features are what moves.
    """

    def __init__(self, problem: Problem, encoded: Encoded, larger: Encoded | None) -> None:
        """Take the encoder that crafts, and the one that decides on clusters where that is another one."""
        self._problem, self._encoded, self._larger = problem, encoded, larger
        self._features: dict[int, Floats] = {}
        self._large: dict[int, Floats] = {}

    def add(self, shard: int) -> None:
        """Encode an own shard."""
        self._features[shard] = self._encoded.features(shard)
        if self._larger:
            self._large[shard] = self._larger.features(shard)

    def clusters(self, count: int, seed: int) -> Clusters:
        """K-means over all ranks' features; a collective."""
        world = self._problem.world
        first_ids = {shard: self._problem.partition.range(shard)[0] for shard in self._features}
        if not self._larger:
            return kmeans(self._features, first_ids, count, world, seed)
        found = kmeans(self._large, first_ids, count, world, seed)
        return replace(found, centers=means(self._features, first_ids, found, world))


def features_phase(extent: Extent, ghost: int, larger: float) -> Phase:
    """One forward of every sample, and where clusters have an input of their own, `larger` times as wide, another one
    of that; nothing is sent."""
    return Phase(
        stage="features",
        marks=extent.own_shards,
        passes=extent.own_samples * (1 + larger**2),
        calls=extent.tiles(ghost),
        busy=extent.workers,
        kept=True,
    )


def kmeans_phase(extent: Extent, clusters: int, *, shared: bool) -> Phase:
    """Distances of own samples to all centres; all ranks get every sample's cluster where these are `shared`."""
    return Phase(
        stage="clusters",
        marks=1,
        passes=extent.own_samples * clusters,
        calls=0,
        sums=int(shared),
        sum_bytes=extent.samples * (1 if clusters <= 256 else 4),
        ranks=extent.workers,
        busy=extent.workers,
    )
