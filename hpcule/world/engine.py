"""Distributed training of one network with torch's DDP."""

from __future__ import annotations

import warnings

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from hpcule.world.group import World


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
