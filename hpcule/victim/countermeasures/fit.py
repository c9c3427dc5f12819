"""A small network that an attacker fits to images before the victim trains."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypedDict, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from hpcule.config.errors import DivergedError
from hpcule.data.source import Ids
from hpcule.victim.keeper import Keeper
from hpcule.victim.training_schedule import rank_shares
from hpcule.world.engine import DdpEngine, EngineState
from hpcule.world.group import World
from hpcule.world.keyed import key, order
from hpcule.world.precision import autocast, has_fast_bf16, place

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Batch:
    """Samples of one step.

    Attributes:
        numbers: int64 [n], of all ranks.
        own: places therein of this rank's samples.
        times: how many ranks take each sample.
        step: number of the step, from 0.
    """

    numbers: Ids
    own: Ids
    times: int
    step: int


@dataclass(frozen=True)
class Fit:
    """How a network is fitted, by Adam whose rate falls to 0 along a cosine.

    Attributes:
        steps: in all.
        batch: largest number of samples of a step.
        rate: of the first step.
        clip_norm: largest norm of a gradient.
    """

    steps: int
    batch: int
    rate: float
    clip_norm: float

    def run(
        self,
        network: Network,
        loss: Callable[[nn.Module, Batch], Tensor],
        what: str,
        samples: int,
        purpose: int,
        world: World,
        keeper: Keeper,
    ) -> Network:
        """Fit a network, which does not look at its batch, and return it in evaluation mode.

        Args:
            network: on the CPU; it is moved to the world's device.
            loss: called with the network and a batch; the sum over this rank's samples.
            what: it is for, in messages.
            samples: how many there are.
            purpose: key of their order.
            world: the ranks that fit it together.
            keeper: keeps the state, and at the end what was fitted: where that is found, nothing is fitted.

        Raises:
            DivergedError: its weights are not finite.
            StoppedError: a signal has asked to stop; the state is saved.
        """
        place(network, world.device)
        optimizer = torch.optim.Adam(network.parameters(), lr=self.rate)
        engine = DdpEngine(network, optimizer, world, clip_norm=self.clip_norm)
        done = 0
        if saved := cast("_Document | None", keeper.saved()):
            engine.load(saved["engine"])
            done = saved["steps"]
        if done == self.steps:
            return network.eval()

        def document() -> _Document:
            return {"engine": engine.state(), "steps": done}

        with keeper.listening():
            for batch in self._batches(done, samples, purpose, world):
                for group in optimizer.param_groups:
                    group["lr"] = self.rate * 0.5 * (1 + math.cos(math.pi * done / self.steps))
                with engine.part(last=True), autocast(world.device, has_fast_bf16(world.device)):
                    total = loss(engine.network, batch)
                engine.backward(total * world.size / (batch.times * len(batch.numbers)))
                engine.step()
                done += 1
                keeper.ask(document)
            if not all(bool(torch.isfinite(weights).all()) for weights in network.parameters()):
                raise DivergedError(f"the network of {what} diverged: the recipe cannot be had for these samples")
            keeper.save(document)
        return network.eval()

    def _batches(self, first: int, samples: int, purpose: int, world: World) -> Iterator[Batch]:
        """The batches from step `first` on; each epoch cuts all samples, in an order of its own, into equal parts."""
        steps_an_epoch = -(-samples // self.batch)
        for epoch in range(first // steps_an_epoch, -(-self.steps // steps_an_epoch)):
            numbers = order(key(purpose, epoch), np.arange(samples, dtype=np.int64))
            for step, part in enumerate(np.array_split(numbers, steps_an_epoch), epoch * steps_an_epoch):
                if first <= step < self.steps:
                    shares = rank_shares(np.arange(len(part), dtype=np.int64), world)
                    yield Batch(part, shares[world.rank], sum(map(len, shares)) // len(part), step)


class _Document(TypedDict):
    engine: EngineState
    steps: int
