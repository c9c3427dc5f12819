"""The template of most of the literature: train the surrogate on x + delta, move delta by signed steps, repeat."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import ClassVar, TypeVar

from torch import Tensor, nn

from hpcule.craft.method import Event, Method, Problem, Saved, State, Step, Unit
from hpcule.craft.parts.noise import ClassNoise, Noise, SampleNoise
from hpcule.craft.parts.settings import ClassNoiseConfig, SurrogateTaskConfig, TwoPhaseConfig
from hpcule.craft.parts.surrogate import Surrogate
from hpcule.data.schedule import Ghost, Schedule, samples_of
from hpcule.data.source import Source
from hpcule.nets import build
from hpcule.nets.pixel_nets import build_pixel_network
from hpcule.tasks.crafting import network_for
from hpcule.tasks.task import Task
from hpcule.world.keyed import key

Template = TypeVar("Template", bound=TwoPhaseConfig)


class TwoPhase(Method[Template]):
    """Rounds of a model phase and a noise phase until the surrogate has learnt the perturbed samples.

    A method of the template says what a noise step aims at (`targets`) and in which direction it goes.
    """

    loss: ClassVar[str | None] = "error"
    surrogate_class: ClassVar[type[Surrogate]] = Surrogate
    sign_of_sum = False
    """How a batch moves a class's delta: by the sign of its samples' summed gradients, or to the mean of where each
    sample's own signed step leads."""

    def __init__(self, config: Template, problem: Problem) -> None:
        self.config = config
        self.problem = problem
        self.surrogate = self.make_surrogate()
        self.schedule = Schedule(problem.partition, config.ghost, config.batch, problem.seed, f"{config.name} model")
        self.steps = config.model_steps if config.model_epochs is None else config.model_epochs * self.schedule.steps
        """Steps of a model phase."""
        self.noise = self.make_noise()
        self.round = 0
        self.batches = 0
        self.trained = False
        self.finished = False

    @classmethod
    def unit(cls, config: Template) -> Unit:
        """The unit of the settings."""
        return config.unit

    @classmethod
    def groups(cls, config: Template, source: Source) -> int:
        """The number of classes, or 0 sample-wise."""
        return source.class_count if config.unit == "class" else 0

    @property
    def direction(self) -> float:
        """-1: the steps lower the loss, +1: they raise it."""
        return -1.0

    def make_network(self, seed: int) -> nn.Module:
        """The surrogate's network, with weights drawn from `seed`; one for each task that is crafted for."""
        return network_for(self.problem.task, partial(self._answering, seed))

    def _answering(self, seed: int, task: Task, number: int) -> nn.Module:
        source, config = self.problem.source, self.config
        seed = key(seed, "task", number) % 2**63 if number else seed
        if task.answers == "pixels":
            assert isinstance(config, SurrogateTaskConfig)
            return build_pixel_network(
                config.pixel_surrogate,
                channels=source.shape[0],
                outputs=task.outputs,
                seed=seed,
                depth=source.depth,
            )
        return build(config.surrogate, channels=source.shape[0], classes=task.outputs, size=source.shape[1:], seed=seed)

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
        config: TwoPhaseConfig = self.config
        arguments = self.problem, self.targets, self.direction
        if isinstance(config, ClassNoiseConfig) and config.unit == "class":
            return ClassNoise(config, *arguments, sign_of_sum=self.sign_of_sum)
        return SampleNoise(config, *arguments)

    def frozen(self) -> nn.Module:
        """Return the frozen network that a noise phase uses."""
        return self.surrogate.frozen()

    def targets(self, labels: Tensor) -> Tensor:
        """The labels [n], or whatever else the task knows, that a noise step aims at: the true ones."""
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
        """Restore the surrogate, the deltas and the round."""
        shared = saved.load("shared")
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
        return Step("model", done, self.steps, {"step": self.batches - 1}, norms, [samples_of(batch)])

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
        """x + delta, deliberately not clipped to [0, 1], through an augmentation; and the targets."""
        clean = self.problem.unit_interval(self.problem.reader.take(ghost.shard, ghost.ids))
        targets, inputs = self.problem.targets(ghost.ids), self.seen(clean, ghost)
        purpose = key(self.problem.seed, self.config.name, "model view", self.batches // self.schedule.steps)
        view = self.config.view(purpose, ghost.ids, self.problem.source.shape[1:])
        return (view.apply(inputs) if view else inputs), targets

    def seen(self, clean: Tensor, ghost: Ghost) -> Tensor:
        """What the surrogate is trained on."""
        return clean + self.noise.delta(ghost)
