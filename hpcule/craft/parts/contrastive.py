"""Contrastive learning as a surrogate, and noise that lowers its loss.

The ghost is the group of negatives: of SimCLR's in both phases, and in the noise phase it is what the network processes
together. So no embedding is sent for a loss, and the number of ranks is no part of it. MoCo's queue takes the keys of
a global batch in the order of its ghosts.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from hpcule.config.ranges import setting
from hpcule.craft.method import finite
from hpcule.craft.parts import separation
from hpcule.craft.parts.levels import uniform_start
from hpcule.craft.parts.noise import ClassNoise, Noise, SampleNoise
from hpcule.craft.parts.settings import ClassNoiseConfig, RoundsConfig
from hpcule.craft.parts.surrogate import Surrogate
from hpcule.data.schedule import Ghost, ghost_sizes, samples_of
from hpcule.data.source import Ids
from hpcule.data.strong import Strong
from hpcule.nets.contrastive import EMBEDDING, Contrastive, MoCo, build_learner
from hpcule.nets.frozen import fold_batch_norms
from hpcule.world.keyed import key, order
from hpcule.world.precision import autocast, place


@dataclass(frozen=True, kw_only=True)
class ContrastiveConfig(ClassNoiseConfig, RoundsConfig):
    """Settings of a contrastive learner, and of noise that lowers its loss."""

    removed: ClassVar[tuple[str, ...]] = ("augment",)
    learner: Literal["simclr", "moco", "byol"] = "simclr"
    """Contrastive method whose loss is lowered."""
    ghost: int = setting(128, at_least=2)
    """Micro-batch, BatchNorm group, and group of negatives."""
    strength: float = setting(1.0, at_least=0, at_most=1)
    """Strength of SimCLR's augmentation, through which both views are drawn."""
    smallest_crop: float = setting(0.2, above=0, at_most=1)
    """Smallest share of the image's area that a view shows."""
    noise_batches: int = setting(20, at_least=1)
    """Minibatches of a noise phase with unit=class; the walk through the data continues from round to round."""
    separation: float = setting(0.0, at_least=0)
    """Weight of TUE's class separation in the noise phase, added to the mean contrastive loss, with unit=sample."""
    temperature: float = setting(0.5, above=0)
    """Temperature of SimCLR's and MoCo's softmax."""
    target_momentum: float = setting(0.99, at_least=0, at_most=1)
    """Momentum of MoCo's and BYOL's second branch."""
    queue: int = setting(4096, at_least=1)
    """Keys that are MoCo's negatives."""

    def __post_init__(self) -> None:
        """Check ranges, and what does not go with unit=class."""
        super().__post_init__()
        if self.separation and self.unit == "class":
            raise ValueError(f"separation={self.separation:g}: with unit=class valid is 0")
        if self.unit == "class" and (self.noise_steps or 1) > 1:
            raise ValueError(f"noise_steps={self.noise_steps}: with unit=class valid is 1, for a batch makes one step")


def new_learner(config: ContrastiveConfig, shape: tuple[int, int, int], seed: int) -> Contrastive:
    """The learner of these settings for samples [C, H, W], with weights drawn from `seed`."""
    channels, height, width = shape
    return build_learner(
        config.learner,
        config.surrogate,
        channels=channels,
        size=(height, width),
        seed=seed,
        temperature=config.temperature,
        momentum=config.target_momentum,
        queue=config.queue,
    )


def two_views(
    images: Tensor, ids: Ids, config: ContrastiveConfig, seed: int, *purpose: str | int
) -> tuple[Tensor, Tensor]:
    """Two independent augmentations of each image [n, C, H, W] in [0, 1]; differentiable.

    Args:
        images: perturbed samples; both views are of the same deltas.
        ids: of the samples.
        config: how strong the augmentation is.
        seed: of the run.
        purpose: with the seed, the key: (seed, purpose, view, id) gives the same draw on every rank.
    """
    size = (images.shape[2], images.shape[3])
    keys = [key(seed, config.name, *purpose, view) for view in range(2)]
    first, second = (Strong.draw(k, ids, size, config.strength, config.smallest_crop).apply(images) for k in keys)
    return first, second


class ContrastiveSurrogate(Surrogate):
    """A contrastive learner trained on pairs of views."""

    network: Contrastive

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._keys: list[Tensor] = []
        """Keys of this rank's ghosts in the current batch."""

    def updated(self, batch: Sequence[Ghost]) -> None:
        """Target branch and queue follow."""
        self.network.follow()
        if isinstance(self.network, MoCo):
            self.network.enqueue(self._gathered(batch))
        self._keys.clear()

    def loss(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """The learner's, of both views, which is what `load` gives of a ghost."""
        with autocast(self.problem.world.device, self.problem.autocast):
            queries, keys = self.network(inputs, labels)
        self._keys.append(keys.detach())
        return self.network.loss(queries, keys)

    def frozen(self, *, fold: bool = True) -> nn.Module:
        """The learner in evaluation mode, without parameter gradients, and with BatchNorms folded in all branches."""
        frozen, device = copy.deepcopy(self.network).eval().requires_grad_(False), self.problem.world.device
        for branch in frozen.branches if fold else ():
            fold_batch_norms(branch, torch.zeros(1, *self.problem.source.shape, device=device))
        place(frozen, device, torch.bfloat16 if self.problem.autocast else torch.float32)
        return frozen

    def _gathered(self, batch: Sequence[Ghost]) -> Tensor:
        """The keys of all samples of a batch, in the order of its ghosts, on every rank."""
        world, own = self.problem.world, iter(self._keys)
        keys = torch.zeros(samples_of(batch), EMBEDDING, device=world.device)
        start = 0
        for ghost in batch:
            if ghost.shard % world.size == world.rank:
                keys[start : start + ghost.size] = next(own)
            start += ghost.size
        # Each row comes from one rank, and adding zeros to it is exact in any order.
        return world.add(keys)


class ContrastiveNoise(Noise):
    """Noise that lowers a contrastive loss of both views, of which gradients flow through every branch."""

    config: ContrastiveConfig

    def gradient(
        self, frozen: nn.Module, clean: Tensor, seen: Tensor, labels: Tensor, ids: Ids, place: tuple[int, int]
    ) -> Tensor:
        """Gradient of the learner's loss over the group; each step has two views of its own."""
        assert isinstance(frozen, Contrastive)
        leaf = seen.detach().requires_grad_()
        queries, keys = frozen(*self._views(leaf, ids, *place))
        (gradient,) = torch.autograd.grad(frozen.loss(queries, keys), leaf)
        return gradient

    def count_errors(
        self, frozen: nn.Module, clean: Tensor, delta: Tensor, labels: Tensor, ids: Ids, number: int
    ) -> int:
        """How many samples' first views are not most similar to their own second view, in the group."""
        with torch.no_grad():
            queries, keys = frozen(*self._views((clean + delta).clamp_(0, 1), ids, number, self.steps))
            nearest = finite(queries[: len(ids)] @ keys[: len(ids)].T).argmax(1)
        return int((nearest != torch.arange(len(ids), device=nearest.device)).sum())

    def start(self, numbers: Ids) -> Tensor:
        """First deltas [n, C, H, W] of these samples or classes, uniform in the budget."""
        purpose = key(self.problem.seed, self.config.name, "start")
        return uniform_start(purpose, numbers, self.problem.source.shape, self.epsilon)

    def _views(self, images: Tensor, ids: Ids, number: int, step: int) -> tuple[Tensor, Tensor]:
        return two_views(images, ids, self.config, self.problem.seed, "noise view", number, step)


class ContrastiveSampleNoise(ContrastiveNoise, SampleNoise):
    """One delta a sample; the samples of a group are drawn again from its shard in every round."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        for shard, deltas in self._deltas.items():
            ids = self.problem.partition.ids(shard)
            for tile in self.problem.tiles(ids):
                deltas[tile] = self.start(ids[tile]).mul_(self.problem.source.levels)

    def gradient(
        self, frozen: nn.Module, clean: Tensor, seen: Tensor, labels: Tensor, ids: Ids, place: tuple[int, int]
    ) -> Tensor:
        """The gradient, plus that of class separation in the group: the loss is a sum, and the ratio a mean."""
        gradient = super().gradient(frozen, clean, seen, labels, ids, place)
        if self.config.separation:
            gradient.add_(separation.of_deltas(seen - clean, labels), alpha=self.config.separation * len(ids))
        return gradient

    def load(self, shard: int, ids: Ids) -> tuple[Tensor, Tensor]:
        """Samples in [0, 1], and labels where class separation needs them."""
        if self.config.separation:
            return super().load(shard, ids)
        clean = self.problem.unit_interval(self.problem.reader.take(shard, ids))
        return clean, torch.zeros(len(ids), dtype=torch.long, device=clean.device)

    def groups(self, ids: Ids, number: int) -> list[Ids]:
        """Ghosts of the shard: neighbours may be of one class, and would be poor negatives of each other."""
        shuffled = order(key(self.problem.seed, self.config.name, "noise group", number), ids)
        return np.split(shuffled, np.cumsum(ghost_sizes(len(ids), self.config.ghost))[:-1])


class ContrastiveClassNoise(ContrastiveNoise, ClassNoise):
    """One delta a class, moved by the sign of its samples' summed gradients; a group is a ghost."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments, sign_of_sum=True)
        self._deltas.copy_(self.start(np.arange(len(self._deltas), dtype=np.int64)))

    def batches(self, number: int) -> list[list[Ghost]]:
        """`noise_batches` minibatches; the walk through the samples continues from round to round."""
        count = self.config.noise_batches
        return [self._schedule.at(number * count + batch) for batch in range(count)]
