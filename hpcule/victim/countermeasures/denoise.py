"""A network that some originals of the attacker, next to their published copies, teach to remove the perturbation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch import Tensor, nn

from hpcule.config.errors import UsageError
from hpcule.data.source import Ids
from hpcule.nets.unet import build_unet
from hpcule.publish.carry import Publish
from hpcule.victim.countermeasures.fit import Batch, Fit
from hpcule.victim.countermeasures.on_grid import on_grid
from hpcule.victim.keeper import Keeper
from hpcule.victim.published import Published
from hpcule.world.group import World
from hpcule.world.keyed import bits, key
from hpcule.world.precision import autocast, has_fast_bf16

FIT = Fit(steps=500, batch=32, rate=1e-3, clip_norm=1.0)


def denoise(train: Published, count: int, read: Callable[[Published], Published], seed: int, world: World) -> Publish:
    """What such a network makes of published samples, or of others.

    It begins as the identity, and remains that where copies do not differ from their originals.

    Args:
        train: the published samples, as they are read.
        count: of originals, in all.
        read: how originals are read.
        seed: of which they are, and of the network.
        world: the ranks that fit the network together.

    Raises:
        UsageError: there are fewer samples.
        DivergedError: the weights of the network are not finite.
    """
    if count > len(train):
        raise UsageError(f"denoise-{count}: here are {len(train)} training samples: use denoise-{len(train)} at most")
    numbers, purpose, fast = drawn(train, count, seed), key(seed, "denoise"), has_fast_bf16(world.device)
    originals = read(train.originals(numbers))
    network = build_unet(channels=train.shape[0], seed=key(purpose, "init") % 2**63)
    for weights in network.last.parameters():
        nn.init.zeros_(weights)

    def loss(called: nn.Module, batch: Batch) -> Tensor:
        own = batch.numbers[batch.own]
        copies, clean = train.images(numbers[own], world.device)[0], originals.images(own, world.device)[0]
        error: Tensor = (copies + called(copies).float() - clean).square().mean((1, 2, 3)).sum()
        return error

    fitted = FIT.run(network, loss, "denoise", count, purpose, world, Keeper(world))

    def change(images: Tensor, ids: Ids) -> Tensor:
        with autocast(world.device, fast):
            noise: Tensor = fitted(images)
        return images + noise.float()

    return on_grid(change, train.source.levels, world.device)


def drawn(train: Published, count: int, seed: int) -> Ids:
    """Numbers of `count` samples, from each class as many as from the others or all that it has, in rising order."""
    labels, purpose = train.labels.numpy(), key(seed, "originals")
    turns = np.empty(len(train), np.int64)
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        ranks = np.argsort(bits(purpose, train.ids[own], 1)[:, 0], kind="stable")
        turns[own[ranks]] = np.arange(len(own))
    found: Ids = np.sort(np.argsort(turns, kind="stable")[:count])
    return found
