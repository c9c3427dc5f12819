"""SEP: self-ensemble protection (Chen, Yuan, Cheng, Gong, Qin, Wang, Huang; ICLR 2023, arXiv 2211.12005).

Adversarial samples for many checkpoints of one training on clean samples at once: what misleads all of them misleads a
victim at any time of its training, and a small budget is enough.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from hpcule.config.ranges import setting
from hpcule.config.run import MethodConfig
from hpcule.craft.method import Event, Facts, Problem, Saved, Settings, State, Step
from hpcule.craft.parts.adversarial import Adversarial, AdversarialConfig
from hpcule.craft.parts.feature_centres import class_centres, feature_gradient
from hpcule.craft.parts.once_trained import RestartedNoise
from hpcule.craft.parts.settings import RateSchedule
from hpcule.craft.parts.surrogate import input_gradient, logits_of
from hpcule.data.source import Ids
from hpcule.data.view import Augment
from hpcule.world.keyed import key


@dataclass(frozen=True, kw_only=True)
class SEPConfig(AdversarialConfig):
    """Defaults are the authors' for CIFAR-10."""

    name: str = "sep"
    epsilon: float = 2.0
    model_epochs: int | None = 120
    schedule: RateSchedule = "stairs"
    milestones: tuple[float, ...] = (0.625, 0.75)
    augment: Augment = "crop-flip"
    noise_steps: int | None = 30
    label_shift: int | None = None
    checkpoints: int = setting(30, at_least=1)
    """Checkpoints of the training, at equal distances; the last is its end."""
    aim: Literal["label", "feature"] = "label"
    """What the steps aim at: the label, or the mean feature of its class under the same checkpoint (SEP-FA)."""
    variance_reduction: bool = False
    """Find each step by as many steps on single checkpoints as there are checkpoints (SEP-FA-VR)."""

    @property
    def default_step(self) -> float:
        """Levels a noise step: half of the budget."""
        return self.epsilon / 2


class Ensemble(nn.Module):
    """Frozen networks that judge together, by their mean logits."""

    def __init__(self, networks: list[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, images: Tensor) -> Tensor:
        """Map [b, C, H, W] to logits [b, K]."""
        return torch.stack([logits_of(network, images) for network in self.networks]).mean(0)


class EnsembleNoise(RestartedNoise):
    """Deltas that follow the mean gradient of all checkpoints. They look at the samples without augmentation."""

    config: SEPConfig
    centres: Tensor
    """Centres of every checkpoint's features by class [M, K, F], if features are aimed at."""

    def sweep(self, frozen: nn.Module, number: int) -> Iterator[Event]:
        """Find the centres first, all ranks together; an interrupted sweep finds them again."""
        assert isinstance(frozen, Ensemble)
        if self.config.aim == "feature":
            self.centres = class_centres(self.problem, list(frozen.networks))
        yield from super().sweep(frozen, number)

    def gradient(
        self, frozen: nn.Module, clean: Tensor, seen: Tensor, labels: Tensor, ids: Ids, place: tuple[int, int]
    ) -> Tensor:
        """Mean over checkpoints, or the last of a walk over single ones."""
        assert isinstance(frozen, Ensemble)
        targets = self.targets(labels)
        each = torch.stack([self._single(frozen, number, seen, targets) for number in range(len(frozen.networks))])
        mean = each.mean(0)
        return self._walk(frozen, seen, targets, each, mean, place) if self.config.variance_reduction else mean

    def _single(self, frozen: Ensemble, number: int, seen: Tensor, targets: Tensor) -> Tensor:
        network = frozen.networks[number]
        if self.config.aim == "feature":
            return feature_gradient(network, seen, self.centres[number][targets])
        return input_gradient(network, seen, targets)[0]

    def _walk(
        self, frozen: Ensemble, seen: Tensor, targets: Tensor, each: Tensor, mean: Tensor, place: tuple[int, ...]
    ) -> Tensor:
        """Sum of gradients of randomly chosen checkpoints along a walk, each corrected by what it was at the start.

        Stochastic variance-reduced gradients (Xiong et al., CVPR 2022, arXiv 2111.10752).
        """
        generator = torch.Generator().manual_seed(key(self.problem.seed, self.config.name, "walk", *place) % 2**63)
        chosen = torch.randint(len(each), (len(each),), generator=generator).tolist()
        moved, total = seen, torch.zeros_like(mean)
        for number in chosen:
            total += self._single(frozen, number, moved, targets) - (each[number] - mean)
            moved = moved.add(total.sign(), alpha=self.step).clamp_(0, 1)
        return total


class SelfEnsemble(Adversarial[SEPConfig]):
    """Adversarial samples of a training's checkpoints."""

    facts: ClassVar[Facts] = Facts(
        title="SEP: self-ensemble protection",
        data="images",
        task="classification",
        intent="availability",
        needs_labels=True,
        bounded=True,
        needs_surrogate=True,
        claimed="crops, flips, cutout, CutMix, other architectures",
        paper="arXiv 2211.12005",
        cost="120 training and 900 noise passes",
        weaknesses="victims learn the wrong label rather than nothing; all checkpoints stay in memory; "
        "undone by adversarial training",
    )
    config_class: ClassVar[type[MethodConfig]] = SEPConfig
    presets: ClassVar[Mapping[str, Settings]] = {
        "small": {"surrogate": "resnet-tiny", "model_epochs": 20, "noise_steps": 15, "checkpoints": 5},
        "smoke": {"surrogate": "resnet-tiny", "batch": 64, "model_epochs": 4, "noise_steps": 5, "checkpoints": 3},
    }

    def __init__(self, config: SEPConfig, problem: Problem) -> None:
        super().__init__(config, problem)
        self.checkpoints: list[Mapping[str, Tensor]] = []
        """Weights and statistics."""

    def make_noise(self) -> EnsembleNoise:
        """Deltas that move against all checkpoints."""
        return EnsembleNoise(self.config, self.problem, self.targets, self.direction)

    def frozen(self) -> nn.Module:
        """An ensemble of all checkpoints."""
        last = copy.deepcopy(self.surrogate.network.state_dict())
        networks = []
        for checkpoint in self.checkpoints:
            self.surrogate.network.load_state_dict(checkpoint)
            networks.append(self.surrogate.frozen())
        self.surrogate.network.load_state_dict(last)
        return Ensemble(networks)

    def state(self) -> State:
        """The state of the template, and the checkpoints so far."""
        state = super().state()
        return State({**state.shared, "checkpoints": self.checkpoints}, state.parts)

    def restore(self, saved: Saved) -> None:
        """Restore the surrogates, the deltas and the stage."""
        super().restore(saved)
        self.checkpoints = saved.load("shared")["checkpoints"]

    def _model_step(self) -> Step:
        step = super()._model_step()
        count = min(self.config.checkpoints, self.steps)
        if self.batches == round((len(self.checkpoints) + 1) * self.steps / count):
            self.checkpoints.append(copy.deepcopy(self.surrogate.network.state_dict()))
        return step
