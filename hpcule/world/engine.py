"""Distributed training of one network: what every engine offers, and the one of torch's DDP."""

from __future__ import annotations

import warnings
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from hpcule.world.group import World


class Engine(Protocol):
    """How gradients of all ranks become one step.

    A step is made of parts: `part`, forward through `network`, `backward`, and after the last part `step`. All ranks
    take equally many parts. The gradient is the sum over the parts, averaged over the ranks whatever their batches
    hold: scale each part's summed loss by `world.size / global count` for the exact mean of an unevenly cut batch.
    """

    network: nn.Module
    """Called in training; evaluation calls the network that was given, which is trained in place."""

    def part(self, last: bool) -> AbstractContextManager[object]:
        """Return a context for forward and backward of one part; only the last part sends gradients to other ranks."""
        ...

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of a part's loss."""
        ...

    def step(self) -> None:
        """Move the weights, and forget the gradient."""
        ...


class DdpEngine:
    """torch's DistributedDataParallel; a world of one needs none."""

    def __init__(self, network: nn.Module, optimizer: torch.optim.Optimizer, world: World) -> None:
        self.network = distributed(network, world)
        self._optimizer = optimizer

    def part(self, last: bool) -> AbstractContextManager[object]:
        """See Engine."""
        if last or not isinstance(self.network, DistributedDataParallel):
            return nullcontext()
        return self.network.no_sync()

    def backward(self, loss: Tensor) -> None:
        """See Engine."""
        loss.backward()  # type: ignore[no-untyped-call]

    def step(self) -> None:
        """See Engine."""
        self._optimizer.step()
        self._optimizer.zero_grad()


def distributed(network: nn.Module, world: World) -> nn.Module:
    """The network, its gradients averaged over the ranks after every backward.

    DDP divides by the number of ranks whatever their batches hold: scale the local loss by
    `world.size * local count / global count` for the exact mean of an unevenly split batch.
    """
    if world.size == 1:
        return network
    devices = [world.device.index] if world.device.type == "cuda" else None
    with warnings.catch_warnings():
        # torch 2.13 renames this option and warns; the releases before it know no other name.
        warnings.filterwarnings("ignore", "`broadcast_buffers`", FutureWarning)
        # Each rank's BatchNorm keeps its own statistics; `average_buffers` joins them before evaluation.
        return DistributedDataParallel(network, device_ids=devices, process_group=world.group, broadcast_buffers=False)


def average_buffers(network: nn.Module, world: World) -> None:
    """Give all ranks the mean of the ranks' floating-point buffers (BatchNorm's running statistics), in place."""
    buffers = [buffer for buffer in network.buffers() if buffer.is_floating_point()]
    if world.size == 1 or not buffers:
        return
    flat = world.add(torch.cat([buffer.reshape(-1) for buffer in buffers])) / world.size
    for buffer, mean in zip(buffers, torch.split(flat, [buffer.numel() for buffer in buffers]), strict=True):
        buffer.copy_(mean.view_as(buffer))
