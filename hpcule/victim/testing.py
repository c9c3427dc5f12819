"""What a network answers on a test set."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from hpcule.data.source import Ids
from hpcule.victim.published import Published
from hpcule.world.precision import autocast

BATCH = 500


def answers(
    network: nn.Module, test: Published, numbers: Ids, device: torch.device, *, fast: bool
) -> Iterator[tuple[Tensor, Tensor]]:
    """Logits [b, classes] and labels [b] of these samples, batch by batch, on the device.

    Args:
        network: on the device, in evaluation mode.
        test: the samples.
        numbers: int64 [n], which of them.
        device: where to compute.
        fast: in bf16.
    """
    with torch.no_grad():
        for start in range(0, len(numbers), BATCH):
            samples, labels = test.take(numbers[start : start + BATCH])
            images = samples.to(device).float().div_(test.source.levels)
            with autocast(device, fast):
                logits = network(images.contiguous(memory_format=torch.channels_last))
            yield logits.float(), labels.to(device)
