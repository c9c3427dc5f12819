"""Adversarial training of a surrogate: it learns from samples that an adversary has moved first (Madry et al., ICLR
2018, arXiv 1706.06083)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self, TypeVar

import torch
from torch import Tensor, nn

from hpcule.config.ranges import setting
from hpcule.craft.method import Step
from hpcule.craft.parts.levels import uniform_start
from hpcule.craft.parts.settings import TwoPhaseConfig
from hpcule.craft.parts.surrogate import input_gradient
from hpcule.craft.parts.two_phase import TwoPhase
from hpcule.data.schedule import Ghost
from hpcule.data.source import Ids
from hpcule.world.keyed import key


@dataclass(frozen=True, kw_only=True)
class AdversaryConfig(TwoPhaseConfig):
    """How far the adversary goes."""

    adversary_radius: float = setting(4.0, at_least=0)
    """Levels that the adversary may move a value by."""
    adversary_steps: int = setting(10, at_least=0)
    """Signed steps of the adversary."""
    adversary_step_size: float | None = setting(None, above=0)
    """Levels a step of the adversary; None: a fifth of the radius."""

    def resolved(self) -> Self:
        """Write out the adversary's step too."""
        size = self.adversary_step_size or max(self.adversary_radius / 5, 1e-3)
        return replace(super().resolved(), adversary_step_size=size)

    def adversary(self, seed: int, levels: int) -> Adversary:
        """The adversary of these settings, for samples on a grid of `levels` levels."""
        assert self.adversary_step_size is not None
        radius, size = self.adversary_radius / levels, self.adversary_step_size / levels
        return Adversary(seed, self.name, radius, size, self.adversary_steps)


class Adversary:
    """Signed steps that raise the loss, from a random start within the radius."""

    def __init__(self, seed: int, name: str, radius: float, step_size: float, steps: int) -> None:
        """Keep the settings.

        Args:
            seed: of the starts.
            name: whose adversary it is, so that no two share their starts.
            radius: of samples in [0, 1], in L-infinity.
            step_size: likewise.
            steps: how many.
        """
        self._seed, self._name = seed, name
        self._radius, self._size, self._steps = radius, step_size, steps

    def start(self, samples: Tensor, ids: Ids, *place: int | str) -> Tensor:
        """Samples [n, C, H, W] in [0, 1] moved at random within the radius, and clipped to [0, 1].

        Args:
            samples: around which.
            ids: [n].
            place: in the run; the same place and id always give the same.
        """
        purpose = key(self._seed, self._name, "adversary", *place)
        start = uniform_start(purpose, ids, samples.shape[1:], self._radius).to(samples.device)
        return start.add_(samples).clamp_(0, 1)

    def ascend(self, frozen: nn.Module, samples: Tensor, labels: Tensor, ids: Ids, *place: int | str) -> Tensor:
        """Adversarial samples [n, C, H, W] for samples in [0, 1] and their labels [n]."""
        moved = self.start(samples, ids, *place)
        for _ in range(self._steps):
            gradient, _ = input_gradient(frozen, moved, labels)
            moved = moved.add(gradient.sign_(), alpha=self._size)
            moved = torch.minimum(torch.maximum(moved, samples - self._radius), samples + self._radius).clamp_(0, 1)
        return moved


Hardened = TypeVar("Hardened", bound=AdversaryConfig)


class AdversariallyTrained(TwoPhase[Hardened]):
    """A model phase whose every step trains on what an adversary makes of the batch, against the network as it was
    before the step, in evaluation mode."""

    before: nn.Module
    """The network before the current step, frozen."""

    @property
    def adversary(self) -> Adversary:
        """The adversary of the settings."""
        return self.config.adversary(self.problem.seed, self.problem.source.levels)

    def _model_step(self) -> Step:
        self.before = self.surrogate.frozen()
        return super()._model_step()

    def _load(self, ghost: Ghost) -> tuple[Tensor, Tensor]:
        inputs, labels = super()._load(ghost)
        return self.adversary.ascend(self.before, inputs, labels, ghost.ids, "model", self.batches), labels
