"""PIL: perturbation-induced linearization (Liu, Chen, Zhang; ICLR 2026, arXiv 2601.19967).

A bias-free linear surrogate W = W2 W1 is trained on the clean samples. The perturbation alone must then be classified
as the sample's label, and the sample with the perturbation removed must leave the surrogate undecided:

    L(delta) = lambda CE(W delta, y) + (1 - lambda) KL(u || softmax(W (x - delta)))

The published sample is x - delta: the sign is the method's. Since the surrogate is linear, the gradient needs no
automatic differentiation: with z = W delta and g = W x,

    grad = W^T r,   r = lambda (softmax(z) - onehot(y)) - (1 - lambda) (softmax(g - z) - u)

For several labels a sample, each is a question of its own: sigmoid for softmax, 1/2 for u, and the mean over those that
are known.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from hpcule.config.ranges import setting
from hpcule.config.run import BoundedConfig, CraftTask, LocalConfig, MethodConfig, TaskConfig
from hpcule.craft.method import Event, Facts, Method, Problem, Saved, Settings, ShardResult, State, Step, finite
from hpcule.craft.parts.levels import local_budget, to_levels, uniform_start
from hpcule.craft.work import Extent, Phase, Walk, Work
from hpcule.data.annotations import UNKNOWN
from hpcule.data.schedule import LINE_BYTES, Ghost, Schedule, samples_of
from hpcule.data.source import Ids
from hpcule.world.exact import Sum
from hpcule.world.keyed import key

TILE_VALUES, TILE_ROWS = 400_000, 128
"""Values and samples of delta worked on at a time, which stay near a core for all noise steps. Products of fewer
samples are slower: of 64 instead of 128 by a tenth, of 32 by a third."""

HUGE = 2.0**100
"""Scaled by this, a gradient clamped to one step is the signed step, in one pass over delta less than by its sign."""


@dataclass(frozen=True, kw_only=True)
class PILConfig(BoundedConfig, LocalConfig, TaskConfig):
    """Defaults are the paper's for CIFAR-10, CIFAR-100 and SVHN."""

    possible_task: ClassVar[tuple[CraftTask, ...]] = ("label", "labels")
    name: str = "pil"
    epochs: int = setting(30, at_least=0)
    """Passes over all samples of the surrogate's training."""
    batch: int = setting(512, at_least=1)
    """Samples of a training step, over all workers."""
    learning_rate: float = setting(0.003, above=0)
    """Learning rate of SGD, cosine to 0, stepped once an epoch."""
    momentum: float = setting(0.9, at_least=0)
    """Momentum of SGD."""
    steps: int = setting(30, at_least=0)
    """Number of noise steps an epoch."""
    step_size: float | None = setting(None, above=0)
    """Levels a noise step; None: epsilon / 10."""
    mix: float = setting(0.9, at_least=0, at_most=1)
    """lambda: weight of the shortcut term against the obfuscation term."""
    ghost: int = setting(128, at_least=1)
    """Micro-batch: part of the result."""

    def __post_init__(self) -> None:
        """Check that the linear map has one task."""
        super().__post_init__()
        if len(self.task.names) > 1:
            raise ValueError(f"task={self.task.written()}: the linear map of pil learns one of them")


class PIL(Method[PILConfig]):
    """Perturbation-induced linearization in closed form."""

    facts: ClassVar[Facts] = Facts(
        title="PIL: perturbation-induced linearization",
        data="images",
        task="classification",
        intent="availability",
        needs_labels=True,
        bounded=True,
        needs_surrogate=True,
        claimed="crops, flips, cutout, CutMix, JPEG",
        paper="arXiv 2601.19967",
        cost="30 training and 30 noise passes, all through a linear map: about 4 million multiply-adds a CIFAR image",
        weaknesses="nearly the same delta within a class (cosine 0.97): averaging or projection removes most of it; "
        "partly undone by JPEG and by projecting out the linear map",
    )
    config_class: ClassVar[type[MethodConfig]] = PILConfig
    presets: ClassVar[Mapping[str, Settings]] = {"small": {"epochs": 10}, "smoke": {"epochs": 5, "steps": 20}}

    def __init__(self, config: PILConfig, problem: Problem) -> None:
        self.config = config
        self.problem = problem
        self.classes = problem.task.outputs
        self.dimension = math.prod(problem.source.shape)
        self.epoch = 0
        generator = torch.Generator().manual_seed(key(problem.seed, "pil", "init") % 2**63)
        shapes = [(self.classes, self.dimension), (self.classes, self.classes)]
        # PyTorch's default for a linear layer: uniform within 1 / sqrt(inputs).
        self.weights = [(torch.rand(s, generator=generator) * 2 - 1) / math.sqrt(s[1]) for s in shapes]
        self.weights = [weight.to(problem.world.device) for weight in self.weights]
        self.momenta = [torch.zeros_like(weight) for weight in self.weights]
        self.precision = torch.bfloat16 if problem.autocast else torch.float32
        self._scratch: dict[torch.dtype, Tensor] = {}

    @classmethod
    def work(cls, config: PILConfig, extent: Extent) -> Work | None:
        """Epochs with a sum a batch; then noise steps, tile by tile, each rank by itself; not counted for several
        labels."""
        if not config.task.one_label:
            return None
        walk = Walk.of(extent.samples, extent.shards, config.ghost, config.batch)
        weights = extent.classes * (extent.values + extent.classes)
        updates = config.epochs * walk.batches
        surrogate = Phase(
            stage="surrogate",
            marks=config.epochs,
            passes=config.epochs * walk.busiest(extent.workers),
            calls=updates,
            sums=updates,
            sum_bytes=weights * extent.addend,
            ranks=extent.workers,
            busy=min(extent.workers, walk.ghosts_a_batch),
        )
        noise = Phase(
            stage="noise",
            marks=extent.own_shards,
            passes=config.steps * extent.own_samples,
            calls=config.steps * extent.tiles(_tile_rows(extent.values)),
            busy=extent.workers,
        )
        # Own ids and labels one-hot, and where the ghosts lie.
        memory = (8 + 4 * extent.classes) * extent.own_samples + LINE_BYTES * extent.samples / config.ghost
        return Work(phases=(surrogate, noise), memory=memory, checkpoint=2 * 4 * weights)

    @classmethod
    def trial(cls, config: PILConfig, batch: int, workers: int) -> PILConfig:
        """Three epochs, and all noise steps."""
        return PILConfig(epochs=3, batch=batch, ghost=config.ghost, steps=config.steps)

    def run(self) -> Iterator[Event]:
        """Train the surrogate, all ranks together; then each rank perturbs its own shards."""
        partition = self.problem.partition
        # The paper walks through the data in file order, unshuffled.
        schedule = Schedule(partition, self.config.ghost, self.config.batch, None, "pil")
        sizes = [samples_of(schedule.at(number)) for number in range(schedule.steps)]
        gradients = Sum([weight.shape for weight in self.weights], self.problem.world.device, exact=self.problem.exact)
        while self.epoch < self.config.epochs:
            self._train(schedule, gradients)
            self.epoch += 1
            last = {"step": self.epoch * schedule.steps - 1}
            yield Step("surrogate", self.epoch, self.config.epochs, last, batches=sizes)
        linear = finite(self.weights[1] @ self.weights[0])
        owned = [shard for shard in self.problem.owned if shard not in self.problem.done]
        for number, shard in enumerate(owned, start=1):
            yield ShardResult(shard, delta=self._perturb(linear, shard))
            yield Step("noise", number, len(owned))

    def state(self) -> State:
        """The surrogate; finished shards are in the store."""
        return State({"epoch": self.epoch, "weights": self.weights, "momenta": self.momenta})

    def restore(self, saved: Saved) -> None:
        """Restore the surrogate."""
        shared = saved.load("shared")
        device = self.problem.world.device
        self.epoch = shared["epoch"]
        self.weights = [weight.to(device) for weight in shared["weights"]]
        self.momenta = [momentum.to(device) for momentum in shared["momenta"]]

    def _train(self, schedule: Schedule, gradients: Sum) -> None:
        world, config = self.problem.world, self.config
        rate = config.learning_rate * 0.5 * (1 + math.cos(math.pi * self.epoch / config.epochs))
        for number in range(schedule.steps):
            batch = schedule.at(number)
            self.problem.expect(schedule.at((number + 1) % schedule.steps))
            for ghost in self.problem.mine(batch):
                gradients.add(self._gradient(ghost))
            first, second = gradients.total(world)
            size = samples_of(batch)
            shares = (first / (size * self.problem.source.levels), second / size)
            for weight, momentum, gradient in zip(self.weights, self.momenta, shares, strict=True):
                momentum.mul_(config.momentum).add_(gradient)
                weight.sub_(momentum, alpha=rate)

    def _gradient(self, ghost: Ghost) -> tuple[Tensor, Tensor]:
        """Gradient of the summed cross-entropy, W1's [K, D] for samples in levels and W2's [K, K], both float32.

        The two products with samples may be in bf16, which holds all levels of an 8-bit sample exactly.
        """
        samples = self._samples(ghost.shard, ghost.ids, self.precision)
        first, second = self.weights
        hidden = (first.to(self.precision) @ samples.t()).float().div_(self.problem.source.levels)
        residual = self._shortcut(second @ hidden, self._known(ghost.ids))
        return ((second.t() @ residual).to(self.precision) @ samples).float(), residual @ hidden.t()

    def _samples(self, shard: int, ids: Ids, dtype: torch.dtype) -> Tensor:
        """Samples in levels [n, D], until the next call: its memory is used again, and so is in the cache already."""
        samples = self.problem.reader.take(shard, ids).flatten(1)
        scratch = self._scratch.get(dtype)
        if scratch is None or len(scratch) < len(samples):
            scratch = torch.empty(samples.shape, dtype=dtype, device=self.problem.world.device)
            self._scratch[dtype] = scratch
        return scratch[: len(samples)].copy_(samples)

    def _known(self, ids: Ids) -> Tensor:
        """Labels one-hot, or several labels with `UNKNOWN` ones, float32 [K, n]."""
        targets = self.problem.targets(ids)
        if targets.ndim > 1:
            return targets.t().float()
        return torch.zeros(self.classes, len(ids), device=targets.device).scatter_(0, targets[None], 1)

    def _shortcut(self, logits: Tensor, known: Tensor) -> Tensor:
        """Gradient of the loss of the labels by the logits, both [K, n]."""
        if self.problem.crafted_for.one_label:
            return _softmax_minus(logits, known)
        return _of_known(logits.sigmoid().sub_(known), known)

    def _undecided(self, logits: Tensor, known: Tensor) -> Tensor:
        """Gradient of the divergence from an answer that is sure of nothing."""
        if self.problem.crafted_for.one_label:
            return functional.softmax(logits, dim=0).sub_(1 / self.classes)
        return _of_known(logits.sigmoid().sub_(0.5), known)

    def _perturb(self, linear: Tensor, shard: int) -> npt.NDArray[np.integer[Any]]:
        source, device = self.problem.source, self.problem.world.device
        epsilon = self.config.epsilon / source.levels
        ids = self.problem.partition.ids(shard)
        purpose, transposed = key(self.problem.seed, "pil", "start"), linear.t().contiguous()
        dtype = self.budget(self.config, source.shape, source.levels).dtype(source.levels)
        found = np.empty((len(ids), self.dimension), dtype)
        for tile in np.array_split(ids, -(-len(ids) // _tile_rows(self.dimension))):
            samples, labels = self._samples(shard, tile, torch.float32), self._known(tile)
            begin = uniform_start(purpose, tile, (self.dimension,), epsilon).to(device)
            clean_logits = (linear @ samples.t()).div_(source.levels)
            clean = samples.view(-1, *source.shape)
            budget = local_budget(clean, source.levels, self.config.epsilon, self.config.flat)
            if budget.ndim:
                budget = budget.expand(clean.shape).flatten(1).t().contiguous()
            delta = self._descend(linear, transposed, clean_logits, labels, begin.t().contiguous(), budget)
            rows = slice(tile[0] - ids[0], tile[-1] + 1 - ids[0])
            moved = delta.t().contiguous().neg_().view(clean.shape)
            change = to_levels(moved, clean, source.levels, self.config.epsilon, self.config.flat)
            found[rows] = change.reshape(len(tile), -1)
        return found.reshape(len(ids), *source.shape)

    def _descend(
        self,
        linear: Tensor,
        transposed: Tensor,
        clean_logits: Tensor,
        labels: Tensor,
        delta: Tensor,
        budget: Tensor,
    ) -> Tensor:
        """Signed steps on delta [D, n] within a budget [] or [D, n]; clean_logits and labels are [K, n].

        Samples are columns: products with so flat a map are a third faster than with samples as rows.
        """
        mix = self.config.mix
        config, levels = self.config, self.problem.source.levels
        size = config.epsilon / levels / 10 if config.step_size is None else config.step_size / levels
        gradient = torch.empty_like(delta)
        for _ in range(self.config.steps):
            logits = linear @ delta
            shortcut = self._shortcut(logits, labels)
            obfuscation = self._undecided(clean_logits - logits, labels)
            residual = shortcut.mul_(mix * HUGE).sub_(obfuscation, alpha=(1 - mix) * HUGE)
            torch.mm(transposed, residual, out=gradient)
            delta.sub_(gradient.clamp_(-size, size)).clamp_(-budget, budget)
        return delta


def _tile_rows(values: int) -> int:
    """Number of samples with `values` values that are perturbed at a time."""
    return max(1, min(TILE_ROWS, TILE_VALUES // values))


def _softmax_minus(logits: Tensor, labels: Tensor) -> Tensor:
    """Softmax over classes minus the one-hot labels, both [K, n]: the gradient of the cross-entropy."""
    return functional.softmax(logits, dim=0).sub_(labels)


def _of_known(gradient: Tensor, known: Tensor) -> Tensor:
    """The mean over known labels of a gradient [L, n]."""
    counted = (known != UNKNOWN).float()
    return gradient.mul_(counted).div_(counted.sum(0).clamp_(min=1))
