"""Distributed training of one network: what every engine offers, and the one of torch's DDP."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol, TypedDict

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.optimizer import StateDict

from hpcule.world.group import World


class EngineState(TypedDict):
    """What a network needs to go on learning; any number of ranks can load it.

    `buffers` has a row a rank, see `rank_buffers`; `optimizer` is what the optimizer of a single rank would save.
    """

    network: Mapping[str, Tensor]
    buffers: Tensor
    optimizer: StateDict


class Engine(Protocol):
    """How gradients of all ranks become one step, whose norm over all parameters may be limited.

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

    def state(self) -> EngineState:
        """Return on rank 0, between two steps, what `load` needs to go on from there; a collective."""
        ...

    def load(self, state: EngineState) -> None:
        """Go on where `state` was, before the first step of this process."""
        ...

    def release(self) -> None:
        """Give every rank all weights of the network, as float32, after the last step; a collective."""
        ...


class DdpEngine:
    """torch's DistributedDataParallel; a world of one needs none."""

    def __init__(
        self, network: nn.Module, optimizer: torch.optim.Optimizer, world: World, *, clip_norm: float | None = None
    ) -> None:
        self.network = distributed(network, world)
        self._trained, self._optimizer, self._world, self._clip_norm = network, optimizer, world, clip_norm

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
        if self._clip_norm is not None:
            nn.utils.clip_grad_norm_(self._trained.parameters(), self._clip_norm)
        self._optimizer.step()
        self._optimizer.zero_grad()

    def state(self) -> EngineState:
        """See Engine."""
        return {
            "network": self._trained.state_dict(),
            "buffers": rank_buffers(self._trained, self._world),
            "optimizer": self._optimizer.state_dict(),
        }

    def load(self, state: EngineState) -> None:
        """See Engine."""
        load_network(self._trained, state, self._world)
        self._optimizer.load_state_dict(state["optimizer"])

    def release(self) -> None:
        """See Engine."""


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
    if world.size > 1 and _own_buffers(network):
        _set_buffers(network, world.add(_flat_buffers(network)) / world.size)


def rank_buffers(network: nn.Module, world: World) -> Tensor:
    """All floating-point buffers of all ranks [ranks, values], on every rank.

    Their own BatchNorm statistics decide nothing but what `average_buffers` makes of them, to the last bit.
    """
    own = _flat_buffers(network)
    rows = torch.zeros(world.size, len(own), dtype=own.dtype, device=own.device)
    rows[world.rank] = own
    return world.add(rows) if len(own) else rows


def load_network(network: nn.Module, state: EngineState, world: World) -> None:
    """Load weights and buffers, in place; ranks of another number than saved them take the mean of their buffers."""
    network.load_state_dict(state["network"])
    rows = state["buffers"]
    _set_buffers(network, rows[world.rank] if len(rows) == world.size else rows.mean(0))


def _own_buffers(network: nn.Module) -> list[Tensor]:
    return [buffer for buffer in network.buffers() if buffer.is_floating_point()]


def _flat_buffers(network: nn.Module) -> Tensor:
    flat = [buffer.reshape(-1) for buffer in _own_buffers(network)]
    return torch.cat(flat) if flat else torch.zeros(0)


def _set_buffers(network: nn.Module, values: Tensor) -> None:
    buffers = _own_buffers(network)
    for buffer, own in zip(buffers, torch.split(values, [buffer.numel() for buffer in buffers]), strict=True):
        buffer.copy_(own.view_as(buffer))
