"""MI-UE: mutual information unlearnable examples (Zhu, Miao, Dong, Gao; ICLR 2026, arXiv 2603.03725).

Rounds as EM's, but the noise does not look at the loss of the labels: it brings the features of a class together, and
away from those of other classes. With g_i, what the last layer sees of clip(x_i + delta_i), and all i and j of a batch:

    minimise over delta    mean_i -log( sum_{j: y_j = y_i} e^{cos(g_i, g_j) / tau} / sum_j e^{cos(g_i, g_j) / tau} )
                           + zeta mean_i log(1 + sum_{j: y_j = y_i} |g_i - g_j| / dim g)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from hpcule.config.ranges import setting
from hpcule.config.run import CraftTask, MethodConfig, TaskConfig
from hpcule.craft.method import Event, Facts, Problem, Saved, Settings, Step, finite
from hpcule.craft.parts.noise import SampleNoise
from hpcule.craft.parts.settings import AugmentConfig, RateSchedule, RoundsConfig
from hpcule.craft.parts.surrogate import features
from hpcule.craft.parts.two_phase import TwoPhase
from hpcule.data.annotations import UNKNOWN
from hpcule.data.schedule import Ghost, Schedule
from hpcule.store.checkpoint import PartState

FEWEST = 8
"""Samples of a shard that a noise step takes together, where there are as many: fewer would be slow."""


@dataclass(frozen=True, kw_only=True)
class MIUEConfig(RoundsConfig, AugmentConfig, TaskConfig):
    """Defaults are those of the authors' code for CIFAR-10."""

    possible_task: ClassVar[tuple[CraftTask, ...]] = ("label", "labels")
    name: str = "mi-ue"
    batch: int = 128
    weight_decay: float = 1e-4
    clip_norm: float | None = None
    model_epochs: int | None = 1
    schedule: RateSchedule = "cosine"
    stop_error: float = -1.0
    max_rounds: int = 100
    noise_batch: int = setting(512, at_least=2)
    """Samples of a noise step, over all workers: the loss compares each of them with all others."""
    temperature: float = setting(0.1, above=0)
    """Temperature tau of the comparison."""
    spread: float = setting(0.0, at_least=0)
    """Weight zeta of the distances within a class: 0.1 in the paper, 0 in the authors' code."""
    step_size: float | None = setting(None, above=0)
    """Levels of a noise step in the first round; null: epsilon / 40."""
    final_step_size: float | None = setting(None, above=0)
    """Levels that the size of a noise step comes close to in the last round, on a straight line; null: the number
    with which the steps of a round go half as far as the budget."""

    def __post_init__(self) -> None:
        """Check that features are of one task."""
        super().__post_init__()
        if len(self.task.names) > 1:
            raise ValueError(f"task={self.task.written()}: the features of mi-ue are compared by one of them")

    @property
    def default_noise_steps(self) -> int:
        """Ten a round."""
        return 10

    @property
    def default_step(self) -> float:
        """A fortieth of the budget."""
        return self.epsilon / 40

    def resolved(self) -> Self:
        """The same settings with the noise steps and both of their sizes written out."""
        settled = super().resolved()
        assert settled.noise_steps is not None
        return replace(settled, final_step_size=settled.final_step_size or settled.epsilon / 2 / settled.noise_steps)

    def step_size_in(self, number: int) -> float:
        """Levels of a noise step in round `number`, the first of which is 0."""
        assert self.step_size is not None
        assert self.final_step_size is not None
        return self.step_size + (self.final_step_size - self.step_size) * number / self.max_rounds


def class_contrast(vectors: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Mean negative logarithm of the share that a sample's own class has in its similarity to all samples.

    A sample is of its own class, so that one without a fellow is only moved away from the others. Where all labels are
    equal, the loss and its gradient are 0.

    Args:
        vectors: features [n, D].
        labels: int64 [n].
        temperature: of the similarity e^{cosine / temperature}.
    """
    directions = functional.normalize(vectors, dim=1)
    similarity = directions @ directions.T / temperature
    own = similarity.masked_fill(labels[:, None] != labels, -torch.inf)
    return (similarity.logsumexp(1) - own.logsumexp(1)).mean()


def class_spread(vectors: Tensor, labels: Tensor) -> Tensor:
    """Mean of log(1 + s_i / D), where s_i sums the distances of sample i to all samples of its class.

    Args:
        vectors: features [n, D].
        labels: int64 [n].
    """
    distances = torch.cdist(vectors, vectors, compute_mode="donot_use_mm_for_euclid_dist")
    sums = (distances * (labels[:, None] == labels)).sum(1)
    return torch.log1p(sums / vectors.shape[1]).mean()


@dataclass
class _Share:
    """One own ghost of a batch."""

    ghost: Ghost
    rows: slice
    """Its samples' places in the batch."""
    clean: Tensor
    labels: Tensor
    delta: Tensor
    budget: Tensor

    def seen(self) -> Tensor:
        """The perturbed samples, without a graph."""
        return (self.clean + self.delta).clamp_(0, 1)


class CoupledNoise(SampleNoise):
    """One delta a sample, moved by a loss that compares all samples of a batch.

    A step has two passes. The first gives the features, which all ranks get; the second carries the loss's gradient for
    them to the pixels of this rank's samples, ghost by ghost. No graph of a whole batch is kept, and the number of
    ranks is no part of the loss.
    """

    config: MIUEConfig

    def __init__(
        self, config: MIUEConfig, problem: Problem, targets: Callable[[Tensor], Tensor], direction: float
    ) -> None:
        super().__init__(config, problem, targets, direction)
        partition = problem.partition
        # From as many shards as possible: where samples are sorted, neighbours are of one class.
        ghost = min(config.ghost, max(FEWEST, -(-config.noise_batch // partition.count)))
        self._schedule = Schedule(partition, ghost, config.noise_batch, problem.seed, f"{config.name} noise")
        self._batch = 0

    def sweep(self, frozen: nn.Module, number: int) -> Iterator[Event]:
        """All ranks walk through the samples batch by batch."""
        self.step = self.direction * self.config.step_size_in(number) / self.problem.source.levels
        with torch.no_grad():
            example = torch.zeros(1, *self.problem.source.shape, device=self.problem.world.device)
            width = features(frozen, example).shape[1]
        batches = self._schedule.epoch(number)
        while self._batch < len(batches):
            if self._batch == 0:
                self._errors = dict.fromkeys(self._errors, 0)
            self.problem.expect(batches[(self._batch + 1) % len(batches)])
            loss = self._move_batch(frozen, batches[self._batch], number, width)
            self._batch += 1
            yield Step("noise", self._batch, len(batches), {"contrast": loss})
        self._batch = 0

    def loss(self, vectors: Tensor, labels: Tensor) -> Tensor:
        """What the steps lower, for the features [n, D] and labels [n] of a batch; of several labels [n, L], the mean
        over them, each over the samples of which it is known."""
        if labels.ndim > 1:
            each = [(column != UNKNOWN, column) for column in labels.t()]
            losses = [self.loss(vectors[known], column[known]) for known, column in each if known.any()]
            return torch.stack(losses).mean() if losses else vectors.sum() * 0
        contrast = class_contrast(vectors, labels, self.config.temperature)
        return contrast + self.config.spread * class_spread(vectors, labels) if self.config.spread else contrast

    def shared_state(self) -> PartState:
        """How far the sweep is; deltas are in the parts."""
        return {"batch": self._batch}

    def restore(self, shared: PartState, saved: Saved) -> None:
        """Load own shards, from whichever rank wrote them, and the place in the sweep."""
        super().restore(shared, saved)
        self._batch = shared["batch"]

    def _move_batch(self, frozen: nn.Module, batch: Sequence[Ghost], number: int, width: int) -> float:
        """All steps of a round on a batch; the loss before the last of them."""
        shares, device = self._shares(batch), self.problem.world.device
        labels = self.problem.targets(np.concatenate([ghost.ids for ghost in batch]))
        for step in range(self.steps):
            table = torch.zeros(len(labels), width, device=device)
            with torch.no_grad():
                for share in shares:
                    table[share.rows] = self._features(frozen, share, share.seen(), (number, step))
            # Each row comes from one rank, and adding zeros to it is exact in any order.
            vectors = finite(self.problem.world.add(table)).requires_grad_()
            loss = self.loss(vectors, labels)
            (pull,) = torch.autograd.grad(loss, vectors)
            for share in shares:
                seen = share.seen().requires_grad_()
                found = self._features(frozen, share, seen, (number, step))
                (gradient,) = torch.autograd.grad(found, seen, pull[share.rows])
                moved = seen.detach().add_(gradient.sign_(), alpha=self.step)
                share.delta = moved.sub_(share.clean).clamp_(-share.budget, share.budget)
        self._keep(frozen, shares, number)
        return float(loss.detach())

    def _shares(self, batch: Sequence[Ghost]) -> list[_Share]:
        """Own ghosts of a batch, with their samples and deltas."""
        world, shares, start = self.problem.world, [], 0
        for ghost in batch:
            rows = slice(start, start + ghost.size)
            if ghost.shard % world.size == world.rank:
                clean, labels = self.load(ghost.shard, ghost.ids)
                shares.append(_Share(ghost, rows, clean, labels, self.delta(ghost), self.budget(clean)))
            start = rows.stop
        return shares

    def _features(self, frozen: nn.Module, share: _Share, images: Tensor, place: tuple[int, int]) -> Tensor:
        """What the last layer sees of perturbed samples, through the augmentation of that place of the run."""
        view = self.view(share.ghost.ids, *place)
        return features(frozen, view.apply(images) if view else images)

    def _keep(self, frozen: nn.Module, shares: Sequence[_Share], number: int) -> None:
        """Put the deltas back to rest, and count the errors that they leave."""
        for share in shares:
            shard, ids = share.ghost.shard, share.ghost.ids
            self._errors[shard] += self.count_errors(frozen, share.clean, share.delta, share.labels, ids, number)
            rows = torch.from_numpy(ids - self.problem.partition.range(shard)[0])
            self._deltas[shard][rows] = share.delta.mul_(self.problem.source.levels).half().cpu()


class MutualInformationUnlearnable(TwoPhase[MIUEConfig]):
    """Noise that brings the features of a class together."""

    facts: ClassVar[Facts] = Facts(
        title="MI-UE: mutual information unlearnable examples",
        data="images",
        task="classification",
        intent="availability",
        needs_labels=True,
        bounded=True,
        needs_surrogate=True,
        claimed="crops, flips, cutout, other architectures, adversarial training of small radius",
        paper="arXiv 2603.03725",
        cost="100 training and 1,000 noise passes, and 1,000 forwards",
        weaknesses="expensive; each noise step sends the features of its batch; weakens with every clean sample; "
        "undone by JPEG, grayscale and purification",
    )
    config_class: ClassVar[type[MethodConfig]] = MIUEConfig
    presets: ClassVar[Mapping[str, Settings]] = {
        "small": {"surrogate": "resnet-tiny", "max_rounds": 15},
        "smoke": {"surrogate": "resnet-tiny", "batch": 64, "noise_batch": 128, "max_rounds": 2, "noise_steps": 5},
    }

    def make_noise(self) -> CoupledNoise:
        """Deltas that move together, batch by batch."""
        return CoupledNoise(self.config, self.problem, self.targets, self.direction)
