"""Adversarial training of a victim, which undoes what its adversary reaches as far as."""

from __future__ import annotations

import dataclasses

import numpy as np
from torch import nn

from hpcule.craft.parts.adversary import Adversary
from hpcule.data.source import Ids
from hpcule.victim.config import VictimConfig
from hpcule.victim.countermeasures.mixing import Mixed
from hpcule.world.keyed import key

STEPS = 10
"""Each a quarter of the radius (Madry et al., arXiv 1706.06083: 2 of 8 levels)."""


def build_adversary(config: VictimConfig, seed: int) -> Adversary | None:
    """The adversary of a recipe, or None; its radius counts in levels of 255 on every grid."""
    step = config.countermeasures.named("adversarial")
    if step is None:
        return None
    assert step.strength is not None
    radius = step.strength / 255
    return Adversary(key(seed, "victim adversary"), step.name, radius, radius / 4, STEPS)


def attacked(adversary: Adversary, network: nn.Module, mixed: Mixed, ids: Ids, step: int) -> Mixed:
    """What the adversary makes of a batch with ids [b], against the network as it is before a step, evaluating."""
    network.eval()
    names, labels = np.tile(ids, mixed.versions), mixed.targets.repeat(mixed.versions)
    images = adversary.ascend(network, mixed.images, labels, names, step)
    network.train()
    return dataclasses.replace(mixed, images=images)
