"""The template of most of the literature: train the surrogate on x + delta, move delta by signed steps, repeat."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from hpcule.config.run import BoundedConfig
from hpcule.craft.method import Event, Method, Problem, Saved, State, Step, Unit
from hpcule.craft.parts import two_phase_work
from hpcule.craft.parts.class_noise import ClassNoise
from hpcule.craft.parts.noise import Noise, SampleNoise
from hpcule.craft.parts.surrogate import Surrogate
from hpcule.craft.work import Extent, Work
from hpcule.data.schedule import Ghost, Schedule
from hpcule.data.source import Source
from hpcule.data.view import Augment, draw_view
from hpcule.nets import build
from hpcule.world.keyed import key

RateSchedule = Literal["constant", "cosine", "stairs"]


@dataclass(frozen=True, kw_only=True)
class TwoPhaseConfig(BoundedConfig):
    """What the methods of the template have in common."""

    unit: Literal["sample", "class"] = "sample"
    """What one delta is shared by."""
    surrogate: str = "resnet18"
    batch: int = 512
    ghost: int = 32
    """Micro-batch and BatchNorm group: part of the result."""
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    clip_norm: float | None = 5.0
    model_steps: int = 10
    """Minibatches of a model phase; the walk through the data continues from round to round."""
    model_epochs: int | None = None
    """So many times all samples instead."""
    schedule: RateSchedule = "constant"
    """Of the learning rate over all rounds; cosine to 0, or stairs that fall to a tenth at the milestones."""
    milestones: tuple[float, ...] = (0.375, 0.625, 0.875)
    """Parts of the way."""
    warmup_epochs: int = 0
    """Over which the learning rate grows to its full height."""
    augment: Augment = "none"
    """What the surrogate looks through in both phases, drawn anew at every step; strong is SimCLR's augmentation."""
    strength: float = 1.0
    """Of the strong augmentation."""
    noise_steps: int | None = None
    """Signed steps on each delta in a noise phase; None: 20 sample-wise, 1 class-wise."""
    step_size: float | None = None
    """Levels a noise step; None: epsilon / 10."""
    stop_error: float = 0.01
    """End when the surrogate's error on the perturbed samples is this small."""
    max_rounds: int = 30
    subset: float = 0.2
    """Class-wise: share of each class that a noise phase walks through."""

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        if not 0 < self.subset <= 1:
            raise ValueError(f"subset={self.subset:g}: valid are above 0 to 1")
        if min(self.batch, self.ghost, self.model_steps, self.max_rounds) < 1:
            raise ValueError("batch, ghost, model_steps and max_rounds must be at least 1")
        if self.learning_rate <= 0 or min(self.momentum, self.weight_decay) < 0:
            raise ValueError("learning_rate must be above 0, momentum and weight_decay at least 0")
        if not all(0 < part < 1 for part in self.milestones):
            raise ValueError(f"milestones={list(self.milestones)}: valid are parts of the way, above 0 and below 1")
        if self.model_epochs is not None and self.model_epochs < 1:
            raise ValueError(f"model_epochs={self.model_epochs}: at least 1")
        if self.warmup_epochs < 0 or not 0 <= self.strength <= 1:
            raise ValueError("warmup_epochs must be at least 0, strength 0 to 1")
        if self.noise_steps is not None and self.noise_steps < 1:
            raise ValueError(f"noise_steps={self.noise_steps}: at least 1")
        if self.step_size is not None and self.step_size <= 0:
            raise ValueError(f"step_size={self.step_size:g}: must be above 0")

    @property
    def default_noise_steps(self) -> int:
        """What `noise_steps` is where it is not set."""
        return 20 if self.unit == "sample" else 1

    @property
    def default_step(self) -> float:
        """What `step_size` is where it is not set; may look at the number of steps."""
        return self.epsilon / 10

    def resolved(self) -> Self:
        """Write out what depends on other settings."""
        counted = replace(self, noise_steps=self.noise_steps or self.default_noise_steps)
        return replace(counted, step_size=counted.step_size or counted.default_step)


class TwoPhase(Method):
    """Rounds of a model phase and a noise phase until the surrogate has learnt the perturbed samples.

    A method of the template says what a noise step aims at (`targets`) and in which direction it goes.
    """

    loss: ClassVar[str | None] = "error"
    surrogate_class: ClassVar[type[Surrogate]] = Surrogate
    sign_of_sum = False
    """How a batch moves a class's delta: by the sign of its samples' summed gradients, or to the mean of where each
    sample's own signed step leads."""

    def __init__(self, config: TwoPhaseConfig, problem: Problem) -> None:
        self.config = config
        self.problem = problem
        self.surrogate = self.make_surrogate()
        members = [problem.partition.ids(shard) for shard in range(problem.partition.count)]
        self.schedule = Schedule(members, config.ghost, config.batch, problem.seed, f"{config.name} model")
        self.steps = config.model_steps if config.model_epochs is None else config.model_epochs * self.schedule.steps
        """Of a model phase."""
        self.noise = self.make_noise()
        self.round = 0
        self.batches = 0
        self.trained = False
        self.finished = False

    @classmethod
    def unit(cls, config: TwoPhaseConfig) -> Unit:
        """As the setting says."""
        return config.unit

    @classmethod
    def groups(cls, config: TwoPhaseConfig, source: Source) -> int:
        """One delta a class, or none shared."""
        return source.class_count if config.unit == "class" else 0

    @classmethod
    def work(cls, config: Any, extent: Extent) -> Work:
        """`max_rounds` rounds."""
        return two_phase_work.work(config, extent)

    @classmethod
    def trial(cls, config: Any, batch: int, workers: int) -> Any:
        """Two short rounds."""
        return two_phase_work.trial(config, batch)

    @property
    def direction(self) -> float:
        """-1: the steps lower the loss, +1: they raise it."""
        return -1.0

    def make_network(self, seed: int) -> nn.Module:
        """The surrogate's network, with weights drawn from `seed`."""
        source = self.problem.source
        return build(
            self.config.surrogate,
            channels=source.shape[0],
            classes=source.class_count,
            size=source.shape[1:],
            seed=seed,
        )

    def make_surrogate(self) -> Surrogate:
        """The network, and how it is trained."""
        config = self.config
        return self.surrogate_class(
            self.make_network(key(self.problem.seed, config.name, "init") % 2**63),
            self.problem,
            learning_rate=config.learning_rate,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            clip_norm=config.clip_norm,
        )

    def make_noise(self) -> Noise:
        """The deltas, and how they move."""
        shared = self.config, self.problem, self.targets, self.direction
        if self.config.unit == "sample":
            return SampleNoise(*shared)
        return ClassNoise(*shared, sign_of_sum=self.sign_of_sum)

    def frozen(self) -> nn.Module:
        """What a noise phase looks at."""
        return self.surrogate.frozen()

    def targets(self, labels: Tensor) -> Tensor:
        """The labels [n] that a noise step aims at: the true ones."""
        return labels

    def run(self) -> Iterator[Event]:
        """Alternate until the error is small enough, then hand out the deltas."""
        while not self.finished:
            while not self.trained:
                yield self._model_step()
            yield from self.noise.sweep(self.frozen(), self.round)
            error = self.noise.error()
            self.round += 1
            self.trained = False
            self.finished = error <= self.config.stop_error or self.round >= self.config.max_rounds
            yield Step("round", self.round, self.config.max_rounds, {"step": self.batches, "error": error})
        yield from self.noise.results()

    def state(self) -> State:
        """Surrogate, deltas, and the place in the rounds."""
        shared = {
            "round": self.round,
            "batches": self.batches,
            "trained": self.trained,
            "finished": self.finished,
            "surrogate": self.surrogate.state(),
            **self.noise.shared_state(),
        }
        return State(shared, self.noise.parts())

    def restore(self, saved: Saved) -> None:
        """Take them back."""
        shared: dict[str, Any] = saved.load("shared")
        self.round, self.batches = shared["round"], shared["batches"]
        self.trained, self.finished = shared["trained"], shared["finished"]
        self.surrogate.restore(shared["surrogate"])
        self.noise.restore(shared, saved)

    def _model_step(self) -> Step:
        batch = self.schedule.at(self.batches)
        self.problem.expect(self.schedule.at(self.batches + 1))
        norms = self.surrogate.train(batch, self._load, self._rate())
        self.batches += 1
        done = self.batches - self.round * self.steps
        self.trained = done == self.steps
        return Step("model", done, self.steps, {"step": self.batches - 1}, norms)

    def _rate(self) -> float:
        """Learning rate of the next model step."""
        config, total = self.config, self.config.max_rounds * self.steps
        warmup = min(config.warmup_epochs * self.schedule.steps, total // 2)
        height = config.learning_rate * min(1.0, (self.batches + 1) / max(1, warmup))
        if config.schedule == "cosine":
            return height * 0.5 * (1 + math.cos(math.pi * self.batches / total))
        if config.schedule == "stairs":
            return height * 0.1 ** sum(self.batches >= part * total for part in config.milestones)
        return height

    def _load(self, ghost: Ghost) -> tuple[Tensor, Tensor]:
        """x + delta, deliberately not clipped to [0, 1], through an augmentation; and the labels."""
        clean = self.problem.unit_interval(self.problem.reader.take(ghost.shard, ghost.ids))
        labels = torch.from_numpy(self.problem.labels[ghost.ids]).to(clean.device)
        inputs = self.seen(clean, ghost)
        config, epoch = self.config, self.batches // self.schedule.steps
        purpose = key(self.problem.seed, config.name, "model view", epoch)
        view = draw_view(config.augment, config.strength, purpose, ghost.ids, self.problem.source.shape[1:])
        return (view.apply(inputs) if view else inputs), labels

    def seen(self, clean: Tensor, ghost: Ghost) -> Tensor:
        """What the surrogate is trained on."""
        return clean + self.noise.delta(ghost)
