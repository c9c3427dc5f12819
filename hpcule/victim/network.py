"""The network that a victim trains, and how it computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from hpcule.nets import build
from hpcule.nets.encoder import Encoder, load_encoder
from hpcule.nets.fast import Fast
from hpcule.nets.pixel_nets import build_pixel_network
from hpcule.nets.transferred import Transferred
from hpcule.victim.config import VictimConfig
from hpcule.victim.published import Published
from hpcule.world.keyed import key, order
from hpcule.world.precision import has_fast_bf16, place

FITTED_IMAGES = 2000
"""Training images whose patches the first layer of the fast network is fitted to."""


def build_network(config: VictimConfig, samples: Published, seed: int, device: torch.device) -> nn.Module:
    """A victim's network with its first weights, for samples such as these.

    Raises:
        UsageError, DataError: it begins with weights that cannot be had; see `load_encoder`.
    """
    source, task = samples.source, samples.task
    channels, height, width = samples.shape
    if task.answers == "pixels":
        first = key(seed, "victim init") % 2**63
        network: nn.Module = build_pixel_network(
            config.pixel_network, channels=channels, outputs=task.outputs, seed=first, depth=source.depth
        )
        place(network, device)
        return network
    if config.countermeasures.named("fine-tune"):
        freeze, adapters = config.countermeasures.named("freeze"), config.countermeasures.named("adapters")
        frozen = (freeze.strength or 0) / 100 if freeze else 0.0
        rank = int(adapters.strength or 0) if adapters else None
        first = key(seed, "victim init") % 2**63
        network = Transferred(trained_encoder(config), task.outputs, first, frozen, rank)
        place(network, device)
        return network
    network = build(
        config.network,
        channels=channels,
        classes=task.outputs,
        size=(height, width),
        seed=key(seed, "victim init") % 2**63,
        rate=source.rate,
    )
    if isinstance(network, Fast):
        chosen = order(key(seed, "victim whitening"), np.arange(len(samples), dtype=np.int64))[:FITTED_IMAGES]
        network.whiten(samples.images(np.sort(chosen), torch.device("cpu"))[0])
    place(network, device)
    return network


def trained_encoder(config: VictimConfig) -> Encoder:
    """What a victim begins with that does not begin with random weights.

    Raises:
        UsageError: no encoder has this name, or it needs a package that is not installed.
        DataError: the weights are absent, or not those of this network.
    """
    checkpoint = Path(config.checkpoint) if config.checkpoint else None
    return load_encoder(config.network, checkpoint, input_size=config.input_size)


def is_fast(config: VictimConfig, device: torch.device) -> bool:
    """Whether a victim computes in bf16 there."""
    return config.precision in ("bf16", "bf16-weights") or (config.precision == "auto" and has_fast_bf16(device))
