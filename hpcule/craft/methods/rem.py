"""REM: robust error-minimising noise (Fu, He, Liu, Shen, Tao; ICLR 2022, arXiv 2203.14533).

EM against adversarial training: the noise lowers the loss that is left after an adversary has raised it, over random
crops and flips. Noise is drawn and descended again at each visit, so that none is carried through the training; what is
published is made at its end, for every sample.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from hpcule.config.ranges import setting
from hpcule.config.run import MethodConfig
from hpcule.craft.method import Facts, Settings
from hpcule.craft.parts.adversary import AdversariallyTrained, AdversaryConfig
from hpcule.craft.parts.levels import uniform_start
from hpcule.craft.parts.noise import SampleNoise
from hpcule.craft.parts.settings import ONE_ROUND, AugmentConfig, RateSchedule
from hpcule.craft.parts.surrogate import input_gradient
from hpcule.data.schedule import Ghost
from hpcule.data.source import Ids
from hpcule.data.view import Augment
from hpcule.world.keyed import key


@dataclass(frozen=True, kw_only=True)
class REMConfig(AdversaryConfig, AugmentConfig):
    """Defaults are the authors' for CIFAR-10."""

    name: str = "rem"
    removed: ClassVar[tuple[str, ...]] = ONE_ROUND
    batch: int = 128
    clip_norm: float | None = None
    model_steps: int = 5000
    schedule: RateSchedule = "stairs"
    milestones: tuple[float, ...] = (0.4, 0.8)
    augment: Augment = "crop-flip"
    noise_steps: int | None = 10
    draws: int = setting(5, at_least=1)
    """Augmentations that the gradient of a noise step is averaged over."""
    against: Literal["adversary", "random"] = "adversary"
    """What the noise has to stand: the adversary's samples, or random ones within its radius (SEM)."""

    @property
    def default_step(self) -> float:
        """Levels a noise step: a fifth of the budget."""
        return self.epsilon / 5


class RobustNoise(SampleNoise):
    """Deltas that start at random at each visit and go down what an adversary leaves of the loss."""

    config: REMConfig

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._adversary = self.config.adversary(self.problem.seed, self.problem.source.levels)

    def move(self, frozen: nn.Module, clean: Tensor, delta: Tensor, labels: Tensor, ids: Ids, number: int) -> Tensor:
        """A visit's new deltas, from a uniform start."""
        purpose = key(self.problem.seed, self.config.name, "start", number)
        start = uniform_start(purpose, ids, clean.shape[1:], self.epsilon).to(clean.device)
        return self.descend(frozen, clean, start, labels, ids, number)

    def gradient(
        self, frozen: nn.Module, clean: Tensor, seen: Tensor, labels: Tensor, ids: Ids, place: tuple[int, int]
    ) -> Tensor:
        """Summed over augmentations, each through an adversary whose step counts as a constant."""
        total = torch.zeros_like(seen)
        for draw in range(self.config.draws):
            here = (*place, draw)
            leaf = seen.detach().requires_grad_()
            view = self.view(ids, *here)
            looked = view.apply(leaf) if view else leaf
            moved = self._disturb(frozen, looked.detach(), labels, ids, here)
            gradient, _ = input_gradient(frozen, moved, labels)
            total += torch.autograd.grad(looked, leaf, gradient)[0] if view else gradient
        return total

    def _disturb(self, frozen: nn.Module, samples: Tensor, labels: Tensor, ids: Ids, place: tuple[int, ...]) -> Tensor:
        if self.config.against == "random":
            return self._adversary.start(samples, ids, *place)
        return self._adversary.ascend(frozen, samples, labels, ids, *place)


class RobustErrorMinimizing(AdversariallyTrained[REMConfig]):
    """EM whose noise and whose surrogate both meet an adversary."""

    facts: ClassVar[Facts] = Facts(
        title="REM: robust error-minimising noise",
        data="images",
        task="classification",
        intent="availability",
        needs_labels=True,
        bounded=True,
        needs_surrogate=True,
        claimed="crops, flips, adversarial training of small radius",
        paper="arXiv 2203.14533",
        cost="about 140 training and 7,600 noise passes",
        weaknesses="the dearest of its family; adversarial training as wide as its own budget undoes it; "
        "undone by grayscale and JPEG",
        too_short=("small", "smoke"),
    )
    config_class: ClassVar[type[MethodConfig]] = REMConfig
    presets: ClassVar[Mapping[str, Settings]] = {
        "small": {
            "surrogate": "resnet-tiny",
            "model_steps": 200,
            "noise_steps": 5,
            "step_size": 3.2,
            "draws": 1,
            "adversary_steps": 3,
            "adversary_step_size": 2.0,
        },
        "smoke": {
            "surrogate": "resnet-tiny",
            "batch": 64,
            "model_steps": 10,
            "noise_steps": 3,
            "step_size": 4.0,
            "draws": 2,
            "adversary_steps": 2,
            "adversary_step_size": 2.0,
        },
    }
    noise: RobustNoise

    def make_noise(self) -> RobustNoise:
        """Deltas that are drawn again at each visit."""
        return RobustNoise(self.config, self.problem, self.targets, self.direction)

    def seen(self, clean: Tensor, ghost: Ghost) -> Tensor:
        """The samples with noise made for this visit, as it would be published."""
        labels = torch.from_numpy(self.problem.classes(ghost.ids)).to(clean.device)
        # 0 is the number of the noise that is published.
        delta = self.noise.move(self.before, clean, clean, labels, ghost.ids, 1 + self.batches)
        levels = self.problem.source.levels
        return delta.mul_(levels).round_().div_(levels).add_(clean).clamp_(0, 1)
