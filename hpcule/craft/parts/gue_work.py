"""What game unlearnable examples cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hpcule.craft.work import Extent, Phase, Walk, Work
from hpcule.nets import build
from hpcule.nets.unet import UNet

if TYPE_CHECKING:
    from hpcule.craft.methods.gue import GUEConfig

PLAYED = 3
"""Passes of a batch beside those that lead to theta': F, and g with either theta."""


def work(config: GUEConfig, extent: Extent) -> Work:
    """Sums of the follower's gradient for each inner step, and of all gradients once a batch; then forwards alone."""
    _, height, width = extent.shape
    network = build(config.surrogate, channels=extent.shape[0], classes=extent.classes, size=(height, width), seed=0)
    follower = sum(parameter.numel() for parameter in network.parameters())
    generator = sum(parameter.numel() for parameter in UNet(extent.shape[0]).parameters())
    walk = Walk.of(extent.samples, extent.shards, config.ghost, config.batch)
    steps, sums = config.epochs * walk.batches, config.inner_steps + 1
    game = Phase(
        stage="game",
        marks=steps,
        passes=config.epochs * (config.inner_steps + PLAYED) * walk.busiest(extent.workers),
        calls=steps,
        sums=steps * sums,
        sum_bytes=extent.addend * ((config.inner_steps + 2) * follower + generator + 3) / sums,
        ranks=extent.workers,
        busy=min(extent.workers, walk.ghosts_a_batch),
    )
    noise = Phase(
        stage="noise",
        marks=extent.own_shards,
        passes=extent.own_samples,
        calls=extent.tiles(),
        busy=extent.workers,
    )
    # All ids, and an epoch's order of them.
    return Work(phases=(game, noise), memory=16.0 * extent.samples, checkpoint=4.0 * (follower + generator))
