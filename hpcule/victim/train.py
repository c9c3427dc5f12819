"""Supervised training of a victim from scratch, on one rank or jointly on many."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from hpcule.config.errors import HpculeError, UsageError
from hpcule.data.augment import CropFlip
from hpcule.data.keyed import key, order
from hpcule.data.source import Ids
from hpcule.nets import build
from hpcule.victim.config import VictimConfig
from hpcule.victim.published import Published
from hpcule.world.engine import average_buffers, distributed
from hpcule.world.group import World
from hpcule.world.precision import autocast, has_fast_bf16, place

EVALUATION_BATCH = 500


@dataclass(frozen=True)
class EpochResult:
    """Accuracy in [0, 1] after an epoch: over the epoch's own (augmented) batches, and on the clean test set."""

    epoch: int
    train: float
    test: float


@dataclass
class VictimResult:
    """One trained victim."""

    seed: int
    steps: int = 0
    seconds: float = 0.0
    curve: list[EpochResult] = field(default_factory=list)

    @property
    def last(self) -> EpochResult:
        """After the last epoch: the figure that counts."""
        return self.curve[-1]

    @property
    def best(self) -> EpochResult:
        """The epoch with the highest test accuracy: an early peak is a known leak of protection."""
        return max(self.curve, key=lambda result: result.test)


def train_victim(
    config: VictimConfig,
    train: Published,
    test: Published,
    world: World,
    seed: int,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> VictimResult:
    """Train on `train` and test on the clean `test` after every epoch.

    Args:
        config: the recipe.
        train: what was published.
        test: clean samples of the same task.
        world: the ranks that train this one network together.
        seed: of initial weights, order and augmentation.
        report: called with epochs done and in all.

    Raises:
        UsageError: a batch smaller than the number of ranks.
        HpculeError: the network diverged.
    """
    if min(config.batch, len(train)) < 2 * world.size:
        raise UsageError(f"a batch of {config.batch} of {len(train)} samples is too small for {world.size} workers")
    trainer = _Trainer(config, train, world, seed)
    result = VictimResult(seed)
    start = time.perf_counter()
    for epoch in range(config.epochs):
        accuracy = trainer.epoch(epoch)
        average_buffers(trainer.network, world)
        result.curve.append(EpochResult(epoch + 1, accuracy, trainer.test(test)))
        report(epoch + 1, config.epochs)
    result.steps = trainer.step
    result.seconds = time.perf_counter() - start
    return result


class _Trainer:
    def __init__(self, config: VictimConfig, train: Published, world: World, seed: int) -> None:
        self.config, self.train, self.world, self.seed = config, train, world, seed
        channels, height, width = train.source.shape
        classes = train.source.class_count
        weights = key(seed, "victim init") % 2**63
        self.network = build(config.network, channels=channels, classes=classes, size=(height, width), seed=weights)
        place(self.network, world.device)
        self.parallel = distributed(self.network, world)
        self.optimizer = torch.optim.SGD(
            self.network.parameters(),
            lr=config.learning_rate,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
        )
        fast = config.precision == "bf16" or (config.precision == "auto" and has_fast_bf16(world.device))
        self.autocast = autocast(world.device, fast)
        self.steps_an_epoch = max(1, round(len(train) / config.batch))
        self.step = 0

    def epoch(self, number: int) -> float:
        """One pass over the training set; returns the accuracy on its batches."""
        self.network.train()
        numbers = order(key(self.seed, "victim", number), np.arange(len(self.train), dtype=np.int64))
        correct = torch.zeros((), dtype=torch.int64, device=self.world.device)
        for batch in np.array_split(numbers, self.steps_an_epoch):
            mine = np.array_split(batch, self.world.size)[self.world.rank]
            correct += self._learn(mine, len(batch), number)
            self.step += 1
        return int(self.world.add(correct)) / len(self.train)

    def test(self, test: Published) -> float:
        """Accuracy on a set, counted over unpadded parts of it."""
        self.network.eval()
        mine = np.array_split(np.arange(len(test), dtype=np.int64), self.world.size)[self.world.rank]
        correct = torch.zeros((), dtype=torch.int64, device=self.world.device)
        with torch.no_grad():
            for start in range(0, len(mine), EVALUATION_BATCH):
                samples, labels = test.take(mine[start : start + EVALUATION_BATCH])
                logits = self._logits(self.network, samples)
                if not bool(torch.isfinite(logits).all()):
                    # A network of NaN guesses one class, which would pass for protection.
                    raise HpculeError("the victim diverged: lower victim.learning_rate")
                correct += self._correct(logits, labels)
        return int(self.world.add(correct)) / len(test)

    def _learn(self, numbers: Ids, batch_size: int, epoch: int) -> Tensor:
        samples, labels = self.train.take(numbers)
        if self.config.augment == "crop-flip":
            padding = max(1, samples.shape[3] // 8)
            draw = CropFlip.draw(key(self.seed, "victim augment", epoch), self.train.ids[numbers], padding)
            samples = draw.apply(samples.to(self.world.device))
        logits = self._logits(self.parallel, samples)
        loss = functional.cross_entropy(logits, labels.to(self.world.device), reduction="sum")
        self._set_rate()
        self.optimizer.zero_grad()
        (loss * self.world.size / batch_size).backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return self._correct(logits.detach(), labels)

    def _logits(self, network: nn.Module, samples: Tensor) -> Tensor:
        images = samples.to(self.world.device).float().div_(self.train.source.levels)
        with self.autocast:
            logits: Tensor = network(images.contiguous(memory_format=torch.channels_last))
        return logits.float()

    def _correct(self, logits: Tensor, labels: Tensor) -> Tensor:
        return (logits.argmax(1) == labels.to(logits.device)).sum()

    def _set_rate(self) -> None:
        total = self.config.epochs * self.steps_an_epoch
        warm = min(1.0, (self.step + 1) / self.steps_an_epoch) if self.config.epochs > 1 else 1.0
        rate = self.config.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * self.step / total))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
