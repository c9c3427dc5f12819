"""BEO: Bayes error optimisation (Zhang, Sun, Lim, Zhang; AAAI 2026, arXiv 2511.08191).

Instead of planting a shortcut, make the classes overlap: with features f of a surrogate that is trained again, from
scratch, on what would be published now,

    max over delta of beta(f(x + delta)),   max |delta| <= epsilon

where beta is the leave-one-out kernel estimate of the Bayes error (`kernel_posterior`). One step of Adam on all
samples, then the next surrogate.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from hpcule.config.ranges import setting
from hpcule.config.run import BoundedConfig, LocalConfig, MethodConfig
from hpcule.craft.method import Event, Facts, Method, Problem, Saved, Settings, State, Step
from hpcule.craft.parts.ascent import Ascent
from hpcule.craft.parts.kernel_posterior import KernelPosterior
from hpcule.craft.parts.surrogate import Surrogate
from hpcule.data.schedule import Ghost, Schedule, samples_of
from hpcule.nets import build
from hpcule.world.keyed import key


@dataclass(frozen=True, kw_only=True)
class BEOConfig(BoundedConfig, LocalConfig):
    """Defaults are those of the authors' code for CIFAR-10."""

    name: str = "beo"
    surrogate: str = "resnet18"
    """Network of the surrogates, such as convnet, resnet-tiny, resnet-small or resnet18."""
    outer_steps: int = setting(190, at_least=1)
    """Surrogates, each trained from scratch and followed by one step of all deltas. The code has 2000, and 2 for
    showing; 190 are those of which it is known what came out."""
    epochs: int = setting(30, at_least=1)
    """Passes over all samples of each surrogate's training."""
    batch: int = setting(128, at_least=1)
    """Samples of a training step, over all workers."""
    ghost: int = setting(32, at_least=1)
    """Micro-batch and BatchNorm group: part of the result."""
    learning_rate: float = setting(0.1, above=0)
    """Learning rate of SGD, cosine to 0 within an outer step."""
    momentum: float = setting(0.9, at_least=0)
    """Momentum of SGD."""
    weight_decay: float = setting(5e-4, at_least=0)
    """Weight decay of the surrogate."""
    bandwidth: float = setting(0.3, above=0)
    """Bandwidth of the kernel, where the largest magnitude of a feature is 1."""
    step_size: float | None = setting(None, above=0)
    """Levels that Adam moves a value at most, or little more; None: a thousandth of the grid at a budget of 8/255, in
    proportion to the budget, but at least so much that all steps together can go twice as far as the budget."""

    def resolved(self) -> Self:
        """Write out the step."""
        least = max(0.255 / 8, 2 / self.outer_steps)
        return replace(self, step_size=self.step_size or least * self.epsilon)


class BayesErrorOptimization(Method[BEOConfig]):
    """Ascend the estimated Bayes error, with a surrogate that is trained again for each step."""

    facts: ClassVar[Facts] = Facts(
        title="BEO: Bayes error optimisation",
        data="images",
        task="classification",
        intent="availability",
        needs_labels=True,
        bounded=True,
        needs_surrogate=True,
        claimed="mixtures with clean samples",
        paper="arXiv 2511.08191",
        cost="5,700 training and 190 noise passes, 190 forwards, and 190 times the kernel of all pairs of samples",
        weaknesses="by far the dearest; about 67 % left on CIFAR-10; the estimate is no certificate",
    )
    config_class: ClassVar[type[MethodConfig]] = BEOConfig
    presets: ClassVar[Mapping[str, Settings]] = {
        "small": {"surrogate": "resnet-tiny", "outer_steps": 12, "epochs": 8},
        "smoke": {"surrogate": "resnet-tiny", "outer_steps": 3, "epochs": 3, "batch": 64},
    }

    def __init__(self, config: BEOConfig, problem: Problem) -> None:
        self.config = config
        self.problem = problem
        self.schedule = Schedule(problem.partition, config.ghost, config.batch, problem.seed, "beo model")
        self.steps = config.epochs * self.schedule.steps
        """Steps of a surrogate's training."""
        assert config.step_size is not None
        self.ascent = Ascent(problem, config.epsilon, config.step_size, config.flat)
        self.outer = 0
        self.trained = 0
        """Steps of this outer step's surrogate."""
        self.surrogate = self._untrained()
        self.gradients: dict[int, Tensor] | None = None
        """Gradients for own shards' features, from when they are known until all deltas have moved, since a delta that
        has moved changes its features."""

    def run(self) -> Iterator[Event]:
        """Train, estimate, step; then hand out the deltas."""
        while self.outer < self.config.outer_steps:
            while self.trained < self.steps:
                yield self._model_step()
            frozen = self.surrogate.frozen()
            if self.gradients is None:
                yield from self._follow(frozen)
            assert self.gradients is not None
            yield from self.ascent.sweep(frozen, self.gradients, self.outer)
            self.outer, self.trained, self.gradients = self.outer + 1, 0, None
            self.surrogate = self._untrained()
        yield from self.ascent.results()

    def state(self) -> State:
        """The place in the outer step, the surrogate; deltas, moments and gradients by shard."""
        shared = {
            "outer": self.outer,
            "trained": self.trained,
            "known": self.gradients is not None,
            "surrogate": self.surrogate.state(),
        }
        parts = self.ascent.parts()
        for shard, gradient in (self.gradients or {}).items():
            parts[_part(shard)] = {"gradient": gradient.cpu()}
        return State(shared, parts)

    def restore(self, saved: Saved) -> None:
        """Restore the surrogate, the deltas and the step."""
        shared = saved.load("shared")
        self.outer, self.trained = shared["outer"], shared["trained"]
        self.surrogate.restore(shared["surrogate"])
        self.ascent.restore(saved)
        if shared["known"]:
            device = self.problem.world.device
            self.gradients = {s: saved.load(_part(s))["gradient"].to(device) for s in self.problem.owned}

    def _untrained(self) -> Surrogate:
        """A surrogate of its own for each outer step."""
        config, (channels, height, width) = self.config, self.problem.source.shape
        network = build(
            config.surrogate,
            channels=channels,
            classes=self.problem.source.class_count,
            size=(height, width),
            seed=key(self.problem.seed, "beo", "init", self.outer) % 2**63,
        )
        return Surrogate(
            network,
            self.problem,
            learning_rate=config.learning_rate,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            clip_norm=None,
        )

    def _model_step(self) -> Step:
        step = self.outer * self.steps + self.trained
        rate = self.config.learning_rate * 0.5 * (1 + math.cos(math.pi * self.trained / self.steps))
        batch = self.schedule.at(step)
        norms = self.surrogate.train(batch, self._load, rate)
        self.trained += 1
        return Step("model", self.trained, self.steps, {"step": step}, norms, [samples_of(batch)])

    def _load(self, ghost: Ghost) -> tuple[Tensor, Tensor]:
        """What would be published now, and the labels."""
        samples = self.ascent.published(ghost.shard, ghost.ids)
        return samples, torch.from_numpy(self.problem.classes(ghost.ids)).to(samples.device)

    def _follow(self, frozen: nn.Module) -> Iterator[Event]:
        """The features of own shards; then all shards pass by twice, for the estimate and for its gradient."""
        found: dict[int, Tensor] = {}
        for turn in range(self.problem.rounds):
            if turn < len(self.problem.owned):
                found[self.problem.owned[turn]] = self.ascent.features(frozen, self.problem.owned[turn])
            yield Step("features", turn + 1, self.problem.rounds)
        posterior = KernelPosterior(found, self.problem, self.config.bandwidth)
        count = self.problem.partition.count
        for shard in range(count):
            posterior.count(shard)
            yield Step("kernels", shard + 1, 2 * count)
        estimate = posterior.estimate()
        for shard in range(count):
            posterior.follow(shard)
            if shard + 1 < count:
                yield Step("kernels", count + shard + 1, 2 * count)
        self.gradients = posterior.gradients()
        yield Step("kernels", 2 * count, 2 * count, {"step": self.outer, "bayes_error": estimate})


def _part(shard: int) -> str:
    return f"gradient-{shard:05d}"
