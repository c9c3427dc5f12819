"""Gaussian noise on a network's weights, the same on every rank."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import nn

from hpcule.world.keyed import key

Place = Callable[[nn.Module], AbstractContextManager[None]]
"""Moves a network's weights for as long as the context lasts."""


def here(network: nn.Module) -> AbstractContextManager[None]:
    """The weights themselves."""
    return nullcontext()


def levels(largest: float, increment: float) -> list[float]:
    """Deviations 0, increment, 2 x increment and so on up to the largest."""
    # Without the margin 0.3 / 0.1 would be two increments.
    return [number * increment for number in range(int(largest / increment + 1e-6) + 1)]


def places(deviation: float, draws: int, seed: int, *purpose: int | str) -> list[Place]:
    """Draw `draws` places around the weights; a single one if there is no noise, since all would be equal."""
    count = draws if deviation > 0 else 1
    return [moved(deviation, key(seed, *purpose, draw) % 2**63) for draw in range(count)]


def moved(deviation: float, seed: int) -> Place:
    """Noise of this deviation on every parameter, weights and biases of normalisations too, statistics not."""

    @contextmanager
    def place(network: nn.Module) -> Iterator[None]:
        parameters = list(network.parameters())
        # Subtracting the noise would leave rounding errors behind.
        pristine = [parameter.detach().clone() for parameter in parameters]
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            if deviation > 0:
                for parameter in parameters:
                    # Drawn on the CPU, whatever the device: the same numbers everywhere.
                    drawn = torch.randn(parameter.shape, generator=generator)
                    parameter.add_(drawn.to(parameter.device, parameter.dtype), alpha=deviation)
        yield
        with torch.no_grad():
            for parameter, before in zip(parameters, pristine, strict=True):
                parameter.copy_(before)

    return place
