"""How an attacker reads images before a network sees any: the steps of a recipe that change every sample once.

As published, such steps change training samples only, and victims are tested on unchanged samples. `test-too`, and
steps that are part of reading as `size` is, change test samples in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from hpcule.publish.carry import Publish
from hpcule.victim.config import VictimConfig
from hpcule.victim.countermeasures.purify import PURIFICATIONS, purification
from hpcule.victim.countermeasures.squeeze import squeeze, squeezed_shape
from hpcule.victim.countermeasures.table import Applied
from hpcule.victim.published import Published


def squeezed(train: Published, config: VictimConfig, seed: int, device: torch.device) -> Published:
    """A training set through those of a recipe's steps that change its samples once.

    Raises:
        UsageError, DataError: a step purifies with a model that cannot be had; see `purification`.
    """
    return _through(train, config.countermeasures.at("samples"), config, seed, device)


def read_for_test(clean: Published, config: VictimConfig, seed: int, device: torch.device) -> Published:
    """Test samples, or clean ones of the attacker's, through those of a recipe's steps that change every image.

    Raises:
        UsageError, DataError: see `squeezed`.
    """
    return _through(clean, config.countermeasures.reading, config, seed, device)


def _through(
    samples: Published, steps: Sequence[Applied], config: VictimConfig, seed: int, device: torch.device
) -> Published:
    for step in steps:
        change = _change(step, config, samples.source.levels, seed, device)
        samples = samples.through(change, squeezed_shape(step, samples.shape))
    return samples


def _change(step: Applied, config: VictimConfig, levels: int, seed: int, device: torch.device) -> Publish:
    if step.name in PURIFICATIONS:
        return purification(step, config.purifier, levels, seed, device)
    return lambda ids, samples: squeeze(samples, [step], levels)
