"""The template of methods that train a surrogate once, on clean samples, and then move every sample against it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, TypeVar

import torch
from torch import Tensor, nn

from hpcule.config.ranges import setting
from hpcule.craft.parts.noise import SampleNoise
from hpcule.craft.parts.settings import ONE_ROUND, AugmentConfig
from hpcule.craft.parts.surrogate import logits_of
from hpcule.craft.parts.two_phase import TwoPhase
from hpcule.data.schedule import Ghost
from hpcule.data.source import Ids
from hpcule.world.keyed import key, normal


@dataclass(frozen=True, kw_only=True)
class OnceTrainedConfig(AugmentConfig):
    """What the methods of the template have in common."""

    removed: ClassVar[tuple[str, ...]] = ONE_ROUND
    batch: int = 128
    clip_norm: float | None = None
    model_epochs: int | None = 40
    noise_steps: int | None = 250
    start: Literal["zero", "normal"] = "zero"
    """First value of each delta; normal: of deviation epsilon, clipped to the budget."""
    restarts: int = setting(1, at_least=1)
    """Runs from a start of their own, of which each sample keeps the best."""

    def __post_init__(self) -> None:
        """Check ranges, and that restarts differ."""
        super().__post_init__()
        if self.restarts > 1 and self.start == "zero":
            raise ValueError(f"restarts={self.restarts}: all are equal from start=zero; take start=normal")

    @property
    def default_step(self) -> float:
        """Levels a noise step: all steps together go two and a half times as far as the budget."""
        assert self.noise_steps is not None
        return 2.5 * self.epsilon / self.noise_steps


Once = TypeVar("Once", bound=OnceTrainedConfig)


class OnceTrained(TwoPhase[Once]):
    """One round, whose surrogate sees clean samples."""

    loss = None

    def make_noise(self) -> RestartedNoise:
        """Deltas that are the best of several runs."""
        return RestartedNoise(self.config, self.problem, self.targets, self.direction)

    def seen(self, clean: Tensor, ghost: Ghost) -> Tensor:
        """The sample itself."""
        return clean


class RestartedNoise(SampleNoise):
    """One delta a sample, the best of several runs."""

    config: OnceTrainedConfig

    def move(self, frozen: nn.Module, clean: Tensor, delta: Tensor, labels: Tensor, ids: Ids, number: int) -> Tensor:
        """Descend from every start, and keep for each sample what is judged best without augmentation."""
        targets, best, least = self.targets(labels), delta, torch.full((len(ids),), torch.inf, device=clean.device)
        for restart in range(self.config.restarts):
            found = self.descend(frozen, clean, self._start(delta, ids, restart), labels, ids, restart)
            with torch.no_grad():
                loss = -self.direction * self.judge(frozen, (clean + found).clamp_(0, 1), targets)
            better = loss < least
            best = torch.where(better[:, None, None, None], found, best)
            least = torch.minimum(loss, least)
        return best

    def judge(self, frozen: nn.Module, samples: Tensor, targets: Tensor) -> Tensor:
        """What the steps lower or raise [n]: the loss of the task."""
        return self.problem.task.losses(logits_of(frozen, samples), targets)

    def _start(self, delta: Tensor, ids: Ids, restart: int) -> Tensor:
        if self.config.start == "zero":
            return delta
        purpose = key(self.problem.seed, self.config.name, "start", restart)
        drawn = torch.from_numpy(normal(purpose, ids, delta[0].numel())).float().view(delta.shape).to(delta.device)
        return drawn.mul_(self.epsilon).clamp_(-self.epsilon, self.epsilon)
