"""MTL-UE: unlearnable examples for several labels (Yu and others; ICML 2025, arXiv 2505.05279).

A generator makes the delta of a sample from the image and from an embedding of each of its labels, and a surrogate f
learns from what it makes:

    min over f, min over G    mean BCE(f(A(x + epsilon G(x, y))), y) + a L_intra + b L_inter

L_intra is large where the two embeddings of a label resemble each other, L_inter where those of different labels do, so
that each label has a pattern of its own. Labels that are to stay learnable count in no loss, and the generator sees the
mean of their embeddings, whatever they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from hpcule.config.errors import UsageError
from hpcule.config.ranges import setting
from hpcule.config.run import BoundedConfig, CraftTasks, LocalConfig, MethodConfig
from hpcule.config.tree import unknown
from hpcule.craft.method import Event, Facts, Method, Problem, Saved, Settings, ShardResult, State, Step, finite
from hpcule.craft.parts.levels import to_levels
from hpcule.craft.parts.surrogate import Surrogate, logits_of
from hpcule.data.annotations import UNKNOWN
from hpcule.data.schedule import Ghost, Schedule, samples_of
from hpcule.data.source import Ids
from hpcule.data.view import Augment, View, draw_view
from hpcule.nets import build
from hpcule.nets.label_generator import build_label_generator
from hpcule.world.exact import Sum
from hpcule.world.keyed import key
from hpcule.world.precision import autocast, place

MILESTONES = (0.6, 0.8)
"""Parts of all epochs after which the generator's learning rate falls to a tenth."""


@dataclass(frozen=True, kw_only=True)
class MTLUEConfig(BoundedConfig, LocalConfig):
    """Defaults are those of the authors' code for CelebA and chest X-rays, as far as they are known."""

    refused: ClassVar[Mapping[str, str]] = {"task": "this method is for several labels: leave it out"}
    name: str = "mtl-ue"
    keep: tuple[str, ...] = ()
    """Names of labels that stay learnable, as [view, sex]; all others are protected."""
    surrogate: str = "resnet18"
    """Network that is trained, and that the generator differentiates: convnet, resnet-tiny, resnet-small, ..."""
    epochs: int = setting(100, at_least=1)
    """Passes of the generator over all samples."""
    batch: int = setting(512, at_least=1)
    """Samples of a step of the surrogate and of the generator, over all workers."""
    ghost: int = setting(32, at_least=1)
    """Micro-batch and BatchNorm group: part of the result."""
    model_steps: int = setting(2, at_least=1)
    """Minibatches of the surrogate before each epoch of the generator."""
    learning_rate: float = setting(0.1, above=0)
    """Learning rate of SGD for the surrogate."""
    generator_rate: float = setting(1e-3, above=0)
    """Learning rate of Adam for the generator; it falls to a tenth after 60% and 80% of the epochs."""
    generator_decay: float = setting(1e-4, at_least=0)
    """Weight decay of the generator."""
    embedding: int = setting(16, at_least=1)
    """Channels of an embedding."""
    intra: float = setting(10.0, at_least=0)
    """Weight of L_intra."""
    inter: float = setting(200.0, at_least=0)
    """Weight of L_inter."""
    augment: Augment = "crop-flip"
    """Augmentation of what the surrogate sees in both phases, drawn again at every step."""


class MultiTaskUnlearnable(Method[MTLUEConfig]):
    """A generator with embeddings of labels, and the surrogate that learns from what it makes."""

    facts: ClassVar[Facts] = Facts(
        title="MTL-UE: unlearnable examples for several labels",
        data="images",
        task="several labels",
        intent="availability",
        needs_labels=True,
        bounded=True,
        needs_surrogate=True,
        claimed="one-task and multi-task victims, other architectures",
        paper="arXiv 2505.05279",
        cost="100 passes through the surrogate and a small generator",
        weaknesses="the deltas are a function of image and labels, which an attacker with some clean ones can learn to "
        "undo; what JPEG, grayscale and purification leave of it is not known",
    )
    config_class: ClassVar[type[MethodConfig]] = MTLUEConfig
    presets: ClassVar[Mapping[str, Settings]] = {
        "small": {"surrogate": "resnet-tiny", "batch": 128, "epochs": 20},
        "smoke": {"surrogate": "resnet-tiny", "batch": 64, "epochs": 3, "embedding": 4},
    }
    loss: ClassVar[str | None] = "loss"

    def __init__(self, config: MTLUEConfig, problem: Problem) -> None:
        self.config = config
        self.problem = problem
        channels, *size = problem.source.shape
        labels = problem.task.outputs
        self.protected = torch.from_numpy(np.flatnonzero(~_kept(config, problem))).to(problem.world.device)
        seeds = [key(problem.seed, "mtl-ue", part) % 2**63 for part in ("surrogate", "generator")]
        shape = (size[0], size[1])
        network = build(config.surrogate, channels=channels, classes=labels, size=shape, seed=seeds[0])
        self.surrogate = Surrogate(
            network, problem, learning_rate=config.learning_rate, momentum=0.9, weight_decay=5e-4, clip_norm=5.0
        )
        self.generator = build_label_generator(
            channels=channels, labels=labels, width=config.embedding, size=shape, seed=seeds[1]
        )
        place(self.generator, problem.world.device)
        self._parameters = list(self.generator.parameters())
        self._adam = torch.optim.Adam(self._parameters, lr=config.generator_rate, weight_decay=config.generator_decay)
        self.model_schedule = Schedule(problem.partition, config.ghost, config.batch, problem.seed, "mtl-ue model")
        self.schedule = Schedule(problem.partition, config.ghost, config.batch, problem.seed, "mtl-ue generator")
        shapes = [*(parameter.shape for parameter in self._parameters), torch.Size([1])]
        self._gradients = Sum(shapes, problem.world.device, exact=problem.exact)
        self.modelled = 0
        """Steps of the surrogate."""
        self.moved = 0
        """Steps of the generator."""

    @classmethod
    def tasks(cls, config: MTLUEConfig) -> CraftTasks:
        """Several labels, whatever the settings."""
        return CraftTasks(("labels",))

    def run(self) -> Iterator[Event]:
        """Train both in turn, all ranks together; then each rank's own shards go through the generator."""
        steps, config = self.schedule.steps, self.config
        frozen: nn.Module | None = None
        while self.moved < config.epochs * steps:
            epoch = self.moved // steps
            while self.modelled < (epoch + 1) * config.model_steps:
                yield self._model_step()
            if frozen is None or self.moved % steps == 0:
                frozen = self.surrogate.frozen()
            batch = self.schedule.at(self.moved)
            self.problem.expect(self.schedule.at(self.moved + 1))
            figures = self._move(frozen, batch)
            self.moved += 1
            yield Step("generator", self.moved, config.epochs * steps, figures, batches=[samples_of(batch)])
        owned = [shard for shard in self.problem.owned if shard not in self.problem.done]
        for number, shard in enumerate(owned, start=1):
            yield self._answer(shard)
            yield Step("noise", number, len(owned))

    def state(self) -> State:
        """Both networks, their optimizers, and the place of each."""
        return State(
            {
                "modelled": self.modelled,
                "moved": self.moved,
                "surrogate": self.surrogate.state(),
                "generator": self.generator.state_dict(),
                "adam": self._adam.state_dict(),
            }
        )

    def restore(self, saved: Saved) -> None:
        """Restore both networks and the place."""
        shared = saved.load("shared")
        self.modelled, self.moved = shared["modelled"], shared["moved"]
        self.surrogate.restore(shared["surrogate"])
        self.generator.load_state_dict(shared["generator"])
        self._adam.load_state_dict(dict(shared["adam"]))

    def _targets(self, ids: Ids) -> Tensor:
        """Several labels [n, L], those that stay learnable as if they were unknown."""
        values = self.problem.targets(ids)
        hidden = torch.full_like(values, UNKNOWN)
        hidden[:, self.protected] = values[:, self.protected]
        return hidden

    def _delta(self, clean: Tensor, targets: Tensor) -> Tensor:
        """epsilon G(x, y) [n, C, H, W] in units of [0, 1], not clipped to the box."""
        holds = torch.where(targets == UNKNOWN, 0.5, targets.float())
        with autocast(self.problem.world.device, self.problem.autocast):
            output: Tensor = self.generator(clean.contiguous(memory_format=torch.channels_last), holds)
        return output.float() * (self.config.epsilon / self.problem.source.levels)

    def _view(self, ids: Ids, what: str, step: int) -> View | None:
        purpose = key(self.problem.seed, "mtl-ue", what, step)
        return draw_view(self.config.augment, 1.0, purpose, ids, self.problem.source.shape[1:])

    def _model_step(self) -> Step:
        batch, steps = self.model_schedule.at(self.modelled), self.config.model_steps
        self.problem.expect(self.model_schedule.at(self.modelled + 1))
        norms = self.surrogate.train(batch, self._load)
        self.modelled += 1
        done = self.modelled - self.moved // self.schedule.steps * steps
        return Step("model", done, steps, {"step": self.modelled - 1}, norms, [samples_of(batch)])

    def _load(self, ghost: Ghost) -> tuple[Tensor, Tensor]:
        """What the generator makes of samples, through the augmentation, and their labels."""
        clean = self.problem.unit_interval(self.problem.reader.take(ghost.shard, ghost.ids))
        targets = self._targets(ghost.ids)
        with torch.no_grad():
            seen = (clean + self._delta(clean, targets)).clamp_(0, 1)
        view = self._view(ghost.ids, "model view", self.modelled)
        return (view.apply(seen) if view else seen), targets

    def _move(self, frozen: nn.Module, batch: Sequence[Ghost]) -> dict[str, float]:
        """One step of the generator."""
        for ghost in self.problem.mine(batch):
            clean = self.problem.unit_interval(self.problem.reader.take(ghost.shard, ghost.ids))
            targets = self._targets(ghost.ids)
            seen = (clean + self._delta(clean, targets)).clamp(0, 1)
            view = self._view(ghost.ids, "generator view", self.moved)
            answers = logits_of(frozen, view.apply(seen) if view else seen)
            loss = self.problem.task.losses(answers, targets).sum() / samples_of(batch)
            self._gradients.add([*torch.autograd.grad(loss, self._parameters), loss.detach().reshape(1)])
        *gradients, loss = self._gradients.total(self.problem.world)
        within, between = self.generator.likeness(self.protected)
        apart = self.config.intra * within + self.config.inter * between
        # They depend on the embeddings alone, which all ranks have.
        (own,) = torch.autograd.grad(apart, self.generator.embeddings)
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = finite(gradient + own if parameter is self.generator.embeddings else gradient)
        passed = sum(self.moved >= part * self.config.epochs * self.schedule.steps for part in MILESTONES)
        self._adam.param_groups[0]["lr"] = self.config.generator_rate * 0.1**passed
        self._adam.step()
        return {"step": self.moved, "loss": loss.item(), "intra": within.item(), "inter": between.item()}

    def _answer(self, shard: int) -> ShardResult:
        source, ids, parts = self.problem.source, self.problem.partition.ids(shard), []
        for tile in self.problem.tiles(ids):
            samples = self.problem.reader.take(shard, ids[tile])
            with torch.no_grad():
                delta = finite(self._delta(self.problem.unit_interval(samples), self._targets(ids[tile])))
            parts.append(to_levels(delta, samples, source.levels, self.config.epsilon, self.config.flat))
        return ShardResult(shard, delta=np.concatenate(parts))


def _kept(config: MTLUEConfig, problem: Problem) -> np.ndarray:
    """Which labels stay learnable, bool [L].

    Raises:
        UsageError: there is no such label, or none is left to protect.
    """
    assert problem.source.label_matrix is not None
    names = problem.source.label_matrix.names
    for name in config.keep:
        if name not in names:
            raise UsageError(f"method.keep: {unknown('label', name, names)}")
    if set(names) <= set(config.keep):
        raise UsageError("method.keep: no label is left to protect: keep fewer")
    return np.isin(np.array(names), config.keep)
