"""PUE: provably unlearnable examples (Wang, Xue, Li, Camtepe, Zhu; NDSS 2025, arXiv 2405.03316).

EM whose surrogate and whose noise both average over Gaussian noise on the surrogate's weights: what protects around a
surrogate, and not only at it, lowers what can be certified for all classifiers near to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from hpcule.config.ranges import setting
from hpcule.config.run import MethodConfig
from hpcule.craft.method import Event, Facts, Problem, Saved, Settings, State, Step
from hpcule.craft.parts.noise import ClassNoise, Noise, SampleNoise
from hpcule.craft.parts.settings import AlternatingConfig
from hpcule.craft.parts.surrogate import input_gradient
from hpcule.craft.parts.two_phase import TwoPhase
from hpcule.data.source import Ids
from hpcule.nets.weight_noise import levels, places


@dataclass(frozen=True, kw_only=True)
class PUEConfig(AlternatingConfig):
    """Defaults are those of the authors' script for CIFAR-100."""

    name: str = "pue"
    unit: Literal["sample", "class"] = "class"
    batch: int = 128
    model_steps: int = 20
    noise_steps: int | None = 1
    stop_error: float = 0.1
    weight_noise: float = setting(0.25, at_least=0)
    """Largest deviation of the noise on the surrogate's weights."""
    weight_noise_step: float = setting(0.05, above=0)
    """Difference from one level of noise to the next; at each of them, 0 among them, both phases make a step."""
    model_draws: int = setting(100, at_least=1)
    """Draws of noise that a step of the surrogate averages over."""
    noise_draws: int = setting(10, at_least=1)
    """Draws of noise that a step of the deltas averages over."""
    noisy_below: float = setting(0.5, at_least=0, at_most=1)
    """Error of the surrogate below which it is trained with noise from then on; 1: from the start."""

    @property
    def deviations(self) -> list[float]:
        """Levels of noise."""
        return levels(self.weight_noise, self.weight_noise_step)


class AroundWeights(Noise):
    """Deltas that descend on the mean loss around the surrogate's weights, one step a level of noise."""

    config: PUEConfig

    def descend(self, frozen: nn.Module, clean: Tensor, delta: Tensor, labels: Tensor, ids: Ids, number: int) -> Tensor:
        """Signed steps within the budget; the draws are those of the round, the same for all samples."""
        targets = self.targets(labels)
        for step in range(self.steps):
            for deviation in self.config.deviations:
                seen = (clean + delta).clamp_(0, 1)
                total = torch.zeros_like(seen)
                purpose = (self.config.name, "noise weights", number, step, round(deviation * 1e6))
                for place in places(deviation, self.config.noise_draws, self.problem.seed, *purpose):
                    with place(frozen):
                        total += input_gradient(frozen, seen, targets)[0]
                delta = seen.add_(total.sign_(), alpha=self.step).sub_(clean).clamp_(-self.epsilon, self.epsilon)
        return delta


class SampleNoiseAroundWeights(AroundWeights, SampleNoise):
    """One delta a sample."""


class ClassNoiseAroundWeights(AroundWeights, ClassNoise):
    """One delta a class."""


class ProvablyUnlearnable(TwoPhase[PUEConfig]):
    """EM around the surrogate's weights."""

    facts: ClassVar[Facts] = Facts(
        title="PUE: provably unlearnable examples",
        data="images",
        task="classification",
        intent="availability",
        needs_labels=True,
        bounded=True,
        needs_surrogate=True,
        claimed="recovery by a little clean data, crops and flips",
        paper="arXiv 2405.03316",
        cost="a round: 20 minibatches with 501 training passes, and 51 noise passes; class-wise 10",
        weaknesses="class-wise noise is found by averaging a class; certificates hold near to one surrogate only; "
        "undone by JPEG, grayscale and adversarial training",
    )
    config_class: ClassVar[type[MethodConfig]] = PUEConfig
    presets: ClassVar[Mapping[str, Settings]] = {
        "small": {
            "surrogate": "resnet-tiny",
            "max_rounds": 12,
            "weight_noise": 0.1,
            "model_draws": 2,
            "noise_draws": 4,
        },
        "smoke": {
            "surrogate": "resnet-tiny",
            "batch": 64,
            "model_steps": 5,
            "max_rounds": 3,
            "weight_noise": 0.1,
            "model_draws": 1,
            "noise_draws": 2,
        },
    }

    def __init__(self, config: PUEConfig, problem: Problem) -> None:
        super().__init__(config, problem)
        self.noisy = config.noisy_below >= 1
        """Whether the surrogate is trained with noise on its weights."""

    def make_noise(self) -> Noise:
        """Deltas that descend around the surrogate's weights."""
        kind = SampleNoiseAroundWeights if self.config.unit == "sample" else ClassNoiseAroundWeights
        return kind(self.config, self.problem, self.targets, self.direction)

    def frozen(self) -> nn.Module:
        """The surrogate with BatchNorm unfolded, since noise is added to every parameter."""
        return self.surrogate.frozen(fold=False)

    def run(self) -> Iterator[Event]:
        """Switch to noisy training once the deltas are learnt well enough."""
        for event in super().run():
            if isinstance(event, Step) and event.figures.get("error", 1.0) < self.config.noisy_below:
                self.noisy = True
            yield event

    def state(self) -> State:
        """The state of the template, and whether training is noisy."""
        state = super().state()
        return State({**state.shared, "noisy": self.noisy}, state.parts)

    def restore(self, saved: Saved) -> None:
        """Restore the surrogate, the noise and the round."""
        super().restore(saved)
        self.noisy = saved.load("shared")["noisy"]

    def _model_step(self) -> Step:
        """One update a level of noise, on the same batch; the one without noise is reported."""
        config, batch, rate = self.config, self.schedule.at(self.batches), self._rate()
        purpose = (config.name, "model weights", self.batches)
        step = super()._model_step()
        for deviation in config.deviations[1:] if self.noisy else []:
            around = places(deviation, config.model_draws, self.problem.seed, *purpose, round(deviation * 1e6))
            self.surrogate.train(batch, self._load, rate, around)
        return step
