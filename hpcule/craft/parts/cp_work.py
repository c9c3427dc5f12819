"""What CP's rounds cost."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from hpcule.craft.parts import two_phase_work
from hpcule.craft.parts.contrastive import new_learner
from hpcule.craft.parts.two_phase_work import FORWARD
from hpcule.craft.work import Extent, Phase, Walk, Work
from hpcule.data.schedule import ghosts_in_shard
from hpcule.nets.contrastive import EMBEDDING

if TYPE_CHECKING:
    from hpcule.craft.methods.cp import CPConfig

TRAINING = {"simclr": 2.0, "moco": 1 + FORWARD, "byol": 2 + 2 * FORWARD}
"""Passes of a sample's two views through the branches; target branches only go forward."""
NOISE = {"simclr": 2.0, "moco": 2.0, "byol": 4.0}
"""The same where gradients flow back to the pixels through all of them."""


def work(config: CPConfig, extent: Extent) -> Work:
    """As every method of the template, but with two views, branches, and a walk of its own class-wise."""
    learner = new_learner(config, extent.shape, 0)
    plain = two_phase_work.work(config, extent, network=learner)
    model, noise, judged = plain.phases
    walk = Walk.of(extent.samples, extent.shards, config.ghost, config.batch)
    if config.unit == "sample":
        ghosts = extent.own_shards * ghosts_in_shard(extent.samples // extent.shards, config.ghost)
        noise = replace(noise, calls=noise.calls * ghosts / extent.tiles())
    else:
        noise, judged = _in_batches(config, noise, walk), _in_batches(config, judged, walk)
    checkpoint = plain.checkpoint + 4 * sum(p.numel() for p in learner.parameters() if not p.requires_grad)
    if config.learner == "moco":
        keys = 4 * EMBEDDING * walk.samples / walk.batches
        model = replace(model, sums=3 * model.marks, sum_bytes=(2 * model.sum_bytes + keys) / 3)
        checkpoint += 4 * EMBEDDING * config.queue
    phases = (
        replace(model, passes=TRAINING[config.learner] * model.passes),
        replace(noise, passes=NOISE[config.learner] * noise.passes),
        replace(judged, passes=NOISE[config.learner] * judged.passes),
    )
    return replace(plain, phases=phases, checkpoint=checkpoint)


def trial(config: CPConfig, batch: int) -> CPConfig:
    """Two rounds of three model steps and of two noise steps or batches."""
    return replace(
        two_phase_work.trial(config, batch),
        learner=config.learner,
        smallest_crop=config.smallest_crop,
        separation=config.separation,
        noise_batches=2,
        queue=config.queue,
    )


def _in_batches(config: CPConfig, phase: Phase, walk: Walk) -> Phase:
    """A phase over whole epochs as one over `noise_batches` a round."""
    share = config.noise_batches / walk.batches
    batches = config.max_rounds * config.noise_batches
    if phase.stage == "round":
        return replace(phase, passes=share * phase.passes)
    return replace(phase, marks=batches, calls=batches, sums=batches, passes=share * phase.passes)
