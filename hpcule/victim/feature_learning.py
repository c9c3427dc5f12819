"""Victims that learn features from pairs of views first, and then name classes by a linear layer on them.

As in the evaluation of Wang, Zhu, Gao (NeurIPS 2024, arXiv 2402.04010) the features and the layer learn from what was
published, and only the layer needs its labels (SupCL's features do too). They take 1,000 epochs; a recipe says how
many, `simclr-200`. The layer is fitted to its optimum, where they take 100 epochs of SGD.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hpcule.config.errors import DivergedError, UsageError
from hpcule.data.source import Ids
from hpcule.data.strong import Strong
from hpcule.nets.contrastive import Contrastive, Learner, MoCo, build_learner, normalized
from hpcule.nets.contrastive_losses import alignment, supervised_nt_xent, uniformity
from hpcule.nets.running_statistics import normalising
from hpcule.nets.synchronised import synchronise
from hpcule.victim.config import VictimConfig
from hpcule.victim.keeper import Keeper
from hpcule.victim.linear_layer import gathered, probed
from hpcule.victim.network import is_fast
from hpcule.victim.published import Published
from hpcule.victim.result import EpochResult, VictimResult
from hpcule.victim.training_schedule import TrainingSchedule, is_small, rank_shares
from hpcule.victim.training_state import TrainingState
from hpcule.world.engine import DdpEngine, average_buffers
from hpcule.world.group import World
from hpcule.world.keyed import key, order
from hpcule.world.precision import autocast, place

BATCH, WEIGHT_DECAY, MOMENTUM = 512, 1e-4, 0.9
QUEUE = 4096
SMALLEST_CROP = 0.08
"""Share of an image's area in a view, torchvision's default."""
WARMUP = 10
"""Epochs of linear warm-up, or a tenth of them all."""
LOOKS = 5
"""Tests, evenly spread over the epochs."""
MOST_TESTS = 1000
"""Largest number of test samples that the geometry of the features is measured on."""


@dataclass(frozen=True)
class Preset:
    """How one learner trains: learning rate for batches of 512, temperature, momentum of the target branch."""

    learner: Learner
    rate: float
    temperature: float = 0.5
    momentum: float = 0.99


PRESETS = {
    "simclr": Preset("simclr", 0.5),
    "moco": Preset("moco", 0.3, temperature=0.2),
    "byol": Preset("byol", 1.0, momentum=0.999),
    "simsiam": Preset("simsiam", 0.1),
    "supcl": Preset("simclr", 0.5, temperature=0.1),
}
"""Settings of the learners: the first four from arXiv 2402.04010, SupCL's temperature from arXiv 2004.11362."""


def train_contrastive(
    config: VictimConfig,
    train: Published,
    test: Published,
    world: World,
    seed: int,
    report: Callable[[int, int], None] = lambda done, total: None,
    keeper: Keeper | None = None,
) -> VictimResult:
    """Learn features from `train`, and test a linear layer on them several times.

    Args:
        config: of which network, precision, BatchNorm and countermeasures count.
        train: what was published.
        test: clean samples of the same task.
        world: the ranks that learn together; a sample's negatives are in the whole batch.
        seed: of initial weights, order and views.
        report: called with epochs done and in all.
        keeper: keeps the training's state, from which it goes on where it was; None: nothing is kept.

    Raises:
        UsageError: too few samples for the number of ranks.
        DivergedError: the features diverged.
        StoppedError: a signal has asked to stop; the state is saved.
    """
    learning = _Learning(config, train, world, seed)
    schedule, keeper = learning.schedule, keeper or Keeper(world)
    if is_small(schedule.batch, world.size):
        raise UsageError(f"{len(train)} samples are too few for {world.size} workers")
    test.load()
    state, looks = learning.state, look_epochs(schedule.epochs)
    state.begin(keeper.saved())
    result = state.result

    def ask() -> None:
        keeper.ask(state.document)

    if state.epochs:
        report(state.epochs, schedule.epochs)
    with keeper.listening():
        for epoch in range(state.epochs, schedule.epochs):
            learning.epoch(epoch, ask)
            if epoch + 1 in looks:
                result.curve.append(learning.probe(epoch + 1, test, ask))
            state.epochs += 1
            report(epoch + 1, schedule.epochs)
            ask()
    state.stop_clock()
    result.alignment, result.uniformity = learning.geometry(test)
    return result


def look_epochs(epochs: int) -> set[int]:
    """Return the epochs, counted from 1, after which the features are tested."""
    return {max(1, round(epochs * (number + 1) / LOOKS)) for number in range(LOOKS)}


class _Learning:
    def __init__(self, config: VictimConfig, train: Published, world: World, seed: int) -> None:
        step = config.countermeasures.features
        assert step is not None
        assert step.strength is not None
        self.name, self.preset, self.world, self.seed = step.name, PRESETS[step.name], world, seed
        self.train = train
        self.train.load()
        self.schedule = _schedule(self.preset.rate, int(step.strength), len(train))
        self.learner = self._build(config)
        self.fast = is_fast(config, world.device)
        self.optimizer = torch.optim.SGD(
            self.learner.parameters(), lr=self.schedule.learning_rate, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY
        )
        self.engine = DdpEngine(self.learner, self.optimizer, world)
        self.state = TrainingState(self.engine, world, seed)

    def epoch(self, number: int, after_step: Callable[[], None] = lambda: None) -> None:
        """One pass over the training set, or what is left of it."""
        self.learner.train()
        result = self.state.result
        numbers = order(key(self.seed, "victim", number), np.arange(len(self.train), dtype=np.int64))
        batches = self.schedule.batches(numbers)
        for batch in batches[result.steps - number * len(batches) :]:
            for group in self.optimizer.param_groups:
                group["lr"] = self.schedule.rate(result.steps)
            self._learn(batch, number)
            self.state.count(len(batch))
            after_step()

    def probe(self, epoch: int, test: Published, after_batch: Callable[[], None] = lambda: None) -> EpochResult:
        """What a linear layer reaches after an epoch, fitted to the training set."""
        average_buffers(self.learner, self.world)
        self.learner.eval()
        encode, fast = self.learner.online[0], self.fast
        return probed(epoch, encode, self.train, test, self.world, fast=fast, after_batch=lambda rows: after_batch())

    def geometry(self, test: Published) -> tuple[float, float]:
        """Alignment of two views of test samples, and uniformity of the first."""
        numbers = np.arange(min(len(test), MOST_TESTS), dtype=np.int64)
        self.learner.eval()
        with torch.no_grad(), autocast(self.world.device, self.fast):
            first, second = (self.learner.online[0](view) for view in self._views(test, numbers, -1))
        first, second = normalized(first), normalized(second)
        return alignment(first, second), uniformity(first)

    def _learn(self, batch: Ids, epoch: int) -> None:
        """One step; the loss is that of the whole batch, on every rank, with a gradient through its own samples."""
        shares = rank_shares(batch, self.world)
        mine = shares[self.world.rank]
        with (
            self.engine.part(last=True),
            autocast(self.world.device, self.fast),
            normalising(self.learner, len(mine)),
        ):
            queries, keys = self.engine.network(*self._views(self.train, mine, epoch))
        whole = len(mine) == len(batch)
        if not whole:
            queries, keys = (gathered(rows, shares, self.world) for rows in (queries, keys))
        loss = self._loss(queries, keys, self.train.labels[torch.from_numpy(batch)])
        if not bool(torch.isfinite(loss)):
            raise DivergedError(f"the features of {self.name} diverged")
        self.engine.backward(loss * (1 if whole else self.world.size) / len(batch))
        self.engine.step()
        self.learner.follow()
        if isinstance(self.learner, MoCo):
            self.learner.enqueue(keys.detach())

    def _loss(self, queries: Tensor, keys: Tensor, labels: Tensor) -> Tensor:
        if self.name == "supcl":
            return supervised_nt_xent(queries, keys, labels.to(queries.device), self.preset.temperature)
        return self.learner.loss(queries, keys)

    def _views(self, published: Published, numbers: Ids, epoch: int) -> tuple[Tensor, Tensor]:
        """Two views [n, C, H, W] of samples, by SimCLR's augmentation."""
        images, _ = published.images(numbers, self.world.device)
        ids, size = published.ids[numbers], (images.shape[2], images.shape[3])
        purposes = [key(self.seed, "victim view", epoch, view) for view in range(2)]
        first, second = (Strong.draw(p, ids, size, 1.0, SMALLEST_CROP).apply(images) for p in purposes)
        return first, second

    def _build(self, config: VictimConfig) -> Contrastive:
        channels, height, width = self.train.shape
        learner = build_learner(
            self.preset.learner,
            config.network,
            channels=channels,
            size=(height, width),
            seed=key(self.seed, "victim init") % 2**63,
            temperature=self.preset.temperature,
            momentum=self.preset.momentum,
            queue=min(QUEUE, len(self.train) // 2),
        )
        place(learner, self.world.device)
        if config.batch_norm == "synchronised":
            synchronise(learner, self.world)
        return learner


def _schedule(rate: float, epochs: int, samples: int) -> TrainingSchedule:
    """Batches of 512, or half of the samples, whose rate is smaller by as much."""
    batch = min(BATCH, -(-samples // 2))
    steps = -(-samples // batch)
    return TrainingSchedule(rate * batch / BATCH, batch, steps, epochs * steps, min(WARMUP, epochs / 10) * steps)
