"""The network that a victim trains, and how it computes."""

from __future__ import annotations

import torch
from torch import nn

from hpcule.data.keyed import key
from hpcule.data.source import Source
from hpcule.nets import build
from hpcule.victim.config import VictimConfig
from hpcule.world.precision import has_fast_bf16, place


def build_network(config: VictimConfig, source: Source, seed: int, device: torch.device) -> nn.Module:
    """A victim's network with its first weights."""
    channels, height, width = source.shape
    network = build(
        config.network,
        channels=channels,
        classes=source.class_count,
        size=(height, width),
        seed=key(seed, "victim init") % 2**63,
        rate=source.rate,
    )
    place(network, device)
    return network


def is_fast(config: VictimConfig, device: torch.device) -> bool:
    """Whether a victim computes in bf16 there."""
    return config.precision == "bf16" or (config.precision == "auto" and has_fast_bf16(device))
