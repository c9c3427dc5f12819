"""EntF: entangled features (Wen, Zhao, Liu, Backes, Wang, Zhang; ICLR 2023, arXiv 2301.13838).

Made to stand adversarial training: a surrogate that was trained adversarially gives robust features, and each sample is
moved so that its own lie far from those of its class (push), or near to those of the nearest other class (pull).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from hpcule.config.run import MethodConfig
from hpcule.craft.method import Event, Facts, Settings
from hpcule.craft.parts.adversary import AdversariallyTrained, AdversaryConfig
from hpcule.craft.parts.feature_centres import class_centres, feature_gradient
from hpcule.craft.parts.once_trained import OnceTrained, OnceTrainedConfig, RestartedNoise
from hpcule.craft.parts.settings import RateSchedule
from hpcule.craft.parts.surrogate import features
from hpcule.data.source import Ids
from hpcule.data.view import Augment


@dataclass(frozen=True, kw_only=True)
class EntFConfig(OnceTrainedConfig, AdversaryConfig):
    """Defaults are the authors' for CIFAR-10."""

    name: str = "entf"
    model_epochs: int | None = 100
    schedule: RateSchedule = "stairs"
    milestones: tuple[float, ...] = (0.75, 0.9)
    augment: Augment = "crop-flip"
    noise_steps: int | None = 300
    start: Literal["zero", "normal"] = "normal"
    adversary_step_size: float | None = 2.0
    aim: Literal["push", "pull"] = "push"
    """Away from the own class's features, or toward those of the nearest other class."""

    @property
    def default_step(self) -> float:
        """Levels a noise step: a twentieth of the budget."""
        return 0.05 * self.epsilon


class FeatureNoise(RestartedNoise):
    """Deltas that move features away from a centre or toward it."""

    config: EntFConfig
    centres: Tensor
    """Features that each class aims at [K, F]."""

    def sweep(self, frozen: nn.Module, number: int) -> Iterator[Event]:
        """Find the centres first, all ranks together; an interrupted sweep finds them again."""
        own = class_centres(self.problem, [frozen])[0]
        self.centres = own if self.config.aim == "push" else own[nearest_other(own)]
        yield from super().sweep(frozen, number)

    def gradient(
        self, frozen: nn.Module, clean: Tensor, seen: Tensor, labels: Tensor, ids: Ids, place: tuple[int, int]
    ) -> Tensor:
        """Gradient of the squared distance to the class's centre, through the place's augmentation."""
        return feature_gradient(frozen, seen, self.centres[labels], self.view(ids, *place))

    def judge(self, frozen: nn.Module, samples: Tensor, targets: Tensor) -> Tensor:
        """Mean squared distance to the class's centre [n]."""
        return (features(frozen, samples) - self.centres[targets]).square().mean(1)


def nearest_other(centres: Tensor) -> Tensor:
    """The class [K] whose centre is nearest to each, itself left out; centres [K, F]."""
    distances = torch.cdist(centres, centres)
    return distances.fill_diagonal_(torch.inf).argmin(1)


class EntangledFeatures(AdversariallyTrained[EntFConfig], OnceTrained[EntFConfig]):
    """Samples whose robust features are those of another class."""

    facts: ClassVar[Facts] = Facts(
        title="EntF: entangled features",
        data="images",
        task="classification",
        intent="availability",
        needs_labels=True,
        bounded=True,
        needs_surrogate=True,
        claimed="adversarial training, crops, flips",
        paper="arXiv 2301.13838",
        cost="100 training, 1,000 adversary's and 300 noise passes",
        weaknesses="the surrogate is dear; against adversarial training as wide as its own budget it loses some; "
        "weaker than others against plain training",
        too_short=("small", "smoke"),
    )
    config_class: ClassVar[type[MethodConfig]] = EntFConfig
    presets: ClassVar[Mapping[str, Settings]] = {
        "small": {"surrogate": "resnet-tiny", "model_epochs": 10, "adversary_steps": 3, "noise_steps": 50},
        "smoke": {
            "surrogate": "resnet-tiny",
            "batch": 64,
            "model_epochs": 3,
            "adversary_steps": 2,
            "noise_steps": 20,
        },
    }

    @property
    def direction(self) -> float:
        """+1, away from the own centre, or -1, toward another."""
        return 1.0 if self.config.aim == "push" else -1.0

    def make_noise(self) -> FeatureNoise:
        """Deltas that move in feature space."""
        return FeatureNoise(self.config, self.problem, self.targets, self.direction)
