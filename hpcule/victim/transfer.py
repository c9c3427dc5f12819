"""A victim that fits a linear layer to the features of a network trained elsewhere.

No owner can rule out that a thief has such weights; ImageNet's are on many machines.
"""

from __future__ import annotations

import time

from hpcule.victim.batches import squeezed
from hpcule.victim.config import VictimConfig
from hpcule.victim.network import is_fast, trained_encoder
from hpcule.victim.probe import probed
from hpcule.victim.published import Published
from hpcule.victim.result import EpochResult, VictimResult
from hpcule.world.group import World
from hpcule.world.precision import place


def train_probe(config: VictimConfig, train: Published, test: Published, world: World, seed: int) -> VictimResult:
    """Fit a linear layer to a trained encoder's features of `train`, and test it on `test`; nothing of it is random.

    Of the settings network, checkpoint, input size, precision and countermeasures count, and the seed for the record.

    Raises:
        UsageError: no encoder has this name, or it needs a package that is not installed.
        DataError: the weights are absent or not those of this network, or the samples have other than 1 or 3 channels.
    """
    result, start = VictimResult(seed), time.perf_counter()
    encoder = trained_encoder(config)
    place(encoder, world.device)
    train = squeezed(train, config, seed, world.device)
    result.curve.append(EpochResult(1, *probed(encoder, train, test, world, fast=is_fast(config, world.device))))
    result.seconds = time.perf_counter() - start
    return result
