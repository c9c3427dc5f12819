"""One cluster's generator under training: a fixed noise image in, one delta out."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from hpcule.nets.generator import build_generator
from hpcule.store.checkpoint import PartState
from hpcule.world.keyed import key

Bound = Literal["clamp", "scaled-tanh"]
FLAT = 0.99
"""Edge of the scaled tanh's range: beyond, less than a fiftieth of the gradient passes."""


class ClusterGenerator:
    """Generator, its fixed input z, and Adam.

    The generator stays in training mode, so that its BatchNorm uses the statistics of the single noise image: in
    evaluation mode a generator gives another delta than the one it was trained for.
    """

    def __init__(
        self,
        cluster: int,
        shape: tuple[int, int, int],
        *,
        epsilon: float,
        bound: Bound,
        weight_decay: float,
        seed: int,
        device: torch.device,
    ) -> None:
        self.cluster = cluster
        self.epsilon = epsilon
        self.bound = bound
        self.saturated = 0.0
        """Share of the last `delta()` where no gradient passes (clamp), or next to none (scaled-tanh)."""
        weights = key(seed, "uc generator", cluster) % 2**63
        self._generator = build_generator(channels=shape[0], seed=weights).to(device).train()
        noise = torch.Generator().manual_seed(key(seed, "uc noise", cluster) % 2**63)
        self._noise = torch.rand(1, *shape, generator=noise).to(device)
        self._optimizer = torch.optim.Adam(self._generator.parameters(), weight_decay=weight_decay)

    def delta(self) -> Tensor:
        """The delta [C, H, W] in units of [0, 1], within the budget; carries the graph for `update`."""
        output: Tensor = self._generator(self._noise)[0]
        if self.bound == "clamp":
            edge, delta = self.epsilon, output.clamp(-self.epsilon, self.epsilon)
        else:
            edge, delta = FLAT, output * self.epsilon
        self.saturated = float((output.detach().abs() > edge).float().mean())
        return delta

    def update(self, delta: Tensor, gradient: Tensor, learning_rate: float) -> None:
        """One step of Adam, given dL/d delta [C, H, W] over the whole batch."""
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._optimizer.zero_grad()
        torch.autograd.backward([delta], [gradient])
        self._optimizer.step()

    def state(self) -> PartState:
        """Weights and moments; the noise image comes from the seed."""
        return {"generator": self._generator.state_dict(), "optimizer": self._optimizer.state_dict()}

    def restore(self, state: PartState) -> None:
        """Restore the generator and its optimizer."""
        self._generator.load_state_dict(state["generator"])
        self._optimizer.load_state_dict(dict(state["optimizer"]))
