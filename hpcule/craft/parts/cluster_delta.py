"""One cluster's delta under training without a generator: signed steps on the delta itself."""

from __future__ import annotations

import torch
from torch import Tensor

from hpcule.store.checkpoint import PartState
from hpcule.world.keyed import key


class ClusterDelta:
    """What `ClusterGenerator` is to UC, with a uniform start and a step of one size."""

    def __init__(
        self,
        cluster: int,
        shape: tuple[int, int, int],
        *,
        epsilon: float,
        step_size: float,
        seed: int,
        device: torch.device,
    ) -> None:
        self.cluster = cluster
        self.epsilon = epsilon
        self.step_size = step_size
        generator = torch.Generator().manual_seed(key(seed, "uc delta", cluster) % 2**63)
        self._delta = torch.rand(shape, generator=generator).mul_(2).sub_(1).mul_(epsilon).to(device)

    @property
    def saturated(self) -> float:
        """Share of values at the edge of the budget; gradients pass there too."""
        return float((self._delta.abs() >= self.epsilon).float().mean())

    def delta(self) -> Tensor:
        """The delta [C, H, W] in units of [0, 1], within the budget."""
        return self._delta.clone()

    def update(self, delta: Tensor, gradient: Tensor, learning_rate: float) -> None:
        """One signed step, given dL/d delta [C, H, W] over the whole batch; it has no learning rate."""
        self._delta.sub_(gradient.sign(), alpha=self.step_size).clamp_(-self.epsilon, self.epsilon)

    def state(self) -> PartState:
        """Return the delta and its optimizer's state."""
        return {"delta": self._delta}

    def restore(self, state: PartState) -> None:
        """Restore the delta and its optimizer's state."""
        self._delta = state["delta"].to(self._delta.device)
