"""What Bayes error optimisation costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from hpcule.craft.parts import two_phase_work
from hpcule.craft.parts.kernel_posterior import COLUMNS
from hpcule.craft.work import Extent, Phase, Walk, Work
from hpcule.nets import build

if TYPE_CHECKING:
    from hpcule.craft.methods.beo import BEOConfig

FACTS = 3
"""Values that go along with the features of a sample when it passes by for the second time."""


def work(config: BEOConfig, extent: Extent) -> Work:
    """Training, features, kernels of all pairs, and one noise pass, as often as there are outer steps."""
    _, height, width = extent.shape
    network = build(config.surrogate, channels=extent.shape[0], classes=extent.classes, size=(height, width), seed=0)
    linear = network.get_submodule("linear")
    assert isinstance(linear, nn.Linear)
    weights = sum(parameter.numel() for parameter in network.parameters())
    walk, outer = Walk.of(extent.samples, extent.shards, config.ghost, config.batch), config.outer_steps
    training = two_phase_work.training(extent, network, walk, outer * config.epochs * walk.batches, outer)
    # Delta and two moments; the features as they are, scaled, and their gradient; masses of the classes.
    sample = 3 * 4 * extent.values + 4 * (3 * linear.in_features + extent.classes + FACTS)
    return Work(
        phases=(
            training,
            _own("features", outer, extent),
            _kernels(outer, linear.in_features, extent),
            _own("noise", outer, extent),
        ),
        # All ids, and an epoch's order of them.
        memory=16.0 * extent.samples + sample * extent.own_samples,
        checkpoint=2.0 * 4 * weights + 4.0 * (3 * extent.values + linear.in_features) * extent.samples,
    )


def _own(stage: str, outer: int, extent: Extent) -> Phase:
    """Each rank walks through its own shards; nothing is sent."""
    return Phase(
        stage=stage,
        marks=outer * extent.own_shards,
        passes=outer * extent.own_samples,
        calls=outer * extent.tiles(),
        starts=outer,
        busy=extent.workers,
    )


def _kernels(outer: int, dimension: int, extent: Extent) -> Phase:
    """Pairs of an own and any sample, twice; tiles of all shards are sent twice, and three numbers a shard gathered."""
    tiles = extent.shards * -(-extent.samples // (extent.shards * COLUMNS))
    sums = 2 * tiles + 3
    return Phase(
        stage="kernels",
        marks=outer * 2 * extent.shards,
        passes=outer * 2.0 * extent.own_samples * extent.samples,
        calls=outer * 2 * tiles,
        starts=outer,
        sums=outer * sums,
        sum_bytes=4 * extent.samples * (2 * dimension + FACTS) / sums,
        ranks=extent.workers,
        busy=extent.workers,
    )
