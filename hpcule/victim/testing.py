"""What a network answers on a test set."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from hpcule.data.source import Ids
from hpcule.victim.published import Published
from hpcule.world.group import World
from hpcule.world.precision import autocast

BATCH = 100
"""Samples of a batch: what a pretrained network of 224 x 224 makes of them takes a gigabyte."""


def answers(
    network: Callable[[Tensor], Tensor], test: Published, numbers: Ids, device: torch.device, *, fast: bool
) -> Iterator[tuple[Tensor, Tensor]]:
    """What a network answers, [b, ...], and the targets [b, ...] of these samples, batch by batch, on the device.

    Args:
        network: on the device, in evaluation mode; or its features.
        test: the samples.
        numbers: int64 [n], which of them.
        device: where to compute.
        fast: in bf16.
    """
    with torch.no_grad():
        for start in range(0, len(numbers), BATCH):
            images, targets = test.task.exam(*test.images(numbers[start : start + BATCH], device))
            with autocast(device, fast):
                answered = network(images.contiguous(memory_format=torch.channels_last))
            yield answered.float(), targets


def measured(network: nn.Module, test: Published, world: World, *, fast: bool) -> Mapping[str, float]:
    """All measures by name of a network in evaluation mode on all samples, which this rank alone tests."""
    tally = test.task.tally()
    for answered, targets in answers(network, test, np.arange(len(test), dtype=np.int64), world.device, fast=fast):
        tally.add(answered, targets)
    return tally.measures(world.alone())
