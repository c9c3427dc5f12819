"""What unlearnable clusters cost."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from hpcule.craft.work import Extent, Phase, Walk, Work

if TYPE_CHECKING:
    from hpcule.craft.parts.uc_config import UCConfig

GENERATOR_WEIGHTS = 7_841_411
"""Parameters for three channels; a checkpoint has Adam's two moments beside them."""


def work(config: UCConfig, extent: Extent) -> Work:
    """Features by shard, K-means, and each cluster's generator in one group of ranks."""
    groups = min(config.clusters, extent.workers)
    # All ids, an epoch's order of them, and the cluster of every sample.
    memory = 8.0 * extent.samples * 3
    checkpoint = 8.0 * extent.samples + groups * 3 * 4 * GENERATOR_WEIGHTS
    notes = ["K-means is taken to need as many iterations as in the calibration"]
    if config.fit_on == "cluster":
        notes.append("clusters are taken to be equally large")
    phases = (_features(config, extent), _kmeans(config, extent), _generators(config, extent, groups))
    return Work(phases=phases, memory=memory, checkpoint=checkpoint, shared=config.clusters, notes=tuple(notes))


def trial(config: UCConfig, batch: int, workers: int) -> UCConfig:
    """Three steps of two clusters a group, where there are as many: the second one shows what a new generator takes."""
    return type(config)(
        clusters=min(config.clusters, 2 * workers),
        encoder=config.encoder,
        checkpoint=config.checkpoint,
        encoder_size=config.encoder_size,
        steps=3,
        batch=batch,
        ghost=config.ghost,
        augment=config.augment,
        direct=config.direct,
    )


def _features(config: UCConfig, extent: Extent) -> Phase:
    """One forward of every sample; nothing is sent."""
    return Phase(
        stage="features",
        marks=extent.own_shards,
        passes=extent.own_samples,
        calls=extent.tiles(config.ghost),
        busy=extent.workers,
        kept=True,
    )


def _kmeans(config: UCConfig, extent: Extent) -> Phase:
    """Distances of own samples to all centres; at the end all ranks gather every sample's cluster."""
    return Phase(
        stage="clusters",
        marks=1,
        passes=extent.own_samples * config.clusters,
        calls=0,
        sums=1,
        sum_bytes=8 * extent.samples,
        ranks=extent.workers,
        busy=extent.workers,
    )


def _generators(config: UCConfig, extent: Extent, groups: int) -> Phase:
    """The smallest group with most clusters; the ranks of a group share out each batch, and each of them runs the
    generator itself."""
    samples = extent.samples if config.fit_on == "all" else math.ceil(extent.samples / config.clusters)
    walk = Walk.of(samples, min(extent.shards, samples), config.ghost, config.batch)
    length = config.epochs * walk.batches if config.steps is None else config.steps
    clusters = -(-config.clusters // groups)
    steps = clusters * length
    ranks = extent.workers // groups
    return Phase(
        stage="generators",
        marks=steps,
        passes=steps * walk.busiest(ranks) / walk.batches,
        calls=steps,
        starts=clusters if length else 0,
        # The gradient, and the loss with the squared norms of single samples' gradients, float64.
        sums=2 * steps if ranks > 1 else 0,
        sum_bytes=(extent.addend * extent.values + 16) / 2,
        ranks=ranks,
        busy=groups * min(ranks, walk.ghosts_a_batch),
    )
