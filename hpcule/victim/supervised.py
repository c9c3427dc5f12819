"""Supervised training of a victim from scratch, on one rank or jointly on many."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from hpcule.config.errors import DivergedError, UsageError
from hpcule.data.source import Ids
from hpcule.nets.running_statistics import normalising
from hpcule.nets.synchronised import synchronise
from hpcule.nets.weight_noise import Place, here, places
from hpcule.victim.batches import Batches
from hpcule.victim.config import VictimConfig
from hpcule.victim.countermeasures.adversarial import attacked, build_adversary
from hpcule.victim.countermeasures.by_task import require_for_samples, require_for_task
from hpcule.victim.countermeasures.mixing import Mixed
from hpcule.victim.gradient_meter import GradientMeter
from hpcule.victim.keeper import Keeper
from hpcule.victim.network import build_network, is_fast
from hpcule.victim.optimizers import AveragedSGD, build_optimizer
from hpcule.victim.published import Published
from hpcule.victim.result import EpochResult, VictimResult
from hpcule.victim.testing import BATCH, answers
from hpcule.victim.training_schedule import TrainingSchedule, check_batch_for, rank_shares
from hpcule.victim.training_state import TrainingState
from hpcule.world.engine import DdpEngine, Engine, average_buffers
from hpcule.world.group import World
from hpcule.world.keyed import key, order
from hpcule.world.precision import autocast


def train_network(
    config: VictimConfig,
    train: Published,
    test: Published,
    world: World,
    seed: int,
    report: Callable[[int, int], None] = lambda done, total: None,
    after_epoch: Callable[[int, nn.Module], None] = lambda epoch, network: None,
    keeper: Keeper | None = None,
) -> tuple[nn.Module, VictimResult]:
    """Train on `train` and test on the clean `test` after every epoch; the network, and what it reached.

    Args:
        config: the recipe.
        train: what was published.
        test: clean samples of the same task.
        world: the ranks that train this one network together.
        seed: of initial weights, order and augmentation.
        report: called with epochs done and in all.
        after_epoch: called with the number of epochs done and the network, which it leaves as it is.
        keeper: keeps the training's state, from which it goes on where it was; None: nothing is kept.

    Raises:
        UsageError: a batch too small for the number of ranks or for the noise scale, or larger than the training set,
            the engine cannot be had, or the recipe is one of those that learn features first, or not for this task.
        DivergedError: the network diverged.
        StoppedError: a signal has asked to stop; the state is saved.
    """
    require_for_task(config.countermeasures, train.task.name)
    require_for_samples(config.countermeasures, train.source)
    if learner := config.countermeasures.features:
        raise UsageError(f"{learner.name}: no classifier is trained as a whole there; for accuracies alone")
    schedule, keeper = TrainingSchedule.of(config, len(train)), keeper or Keeper(world)
    check_batch_for(world.size, config.batch)
    trainer = _Trainer(config, train, world, seed)
    # Reading is no training: neither a victim's seconds nor a calibration from them have it.
    test.load()
    trainer.begin(keeper)
    state, result = trainer.state, trainer.state.result

    def ask() -> None:
        keeper.ask(state.document)

    def look(after_batch: Callable[[], None] = lambda: None) -> Mapping[str, float]:
        average_buffers(trainer.network, world)
        measures = trainer.test(test, after_batch)
        reached = measures[test.task.measure]
        if config.target is not None and result.steps_to_target is None and reached >= config.target:
            result.steps_to_target = result.steps
        return measures

    def after_step() -> None:
        due = config.evaluate_every is not None and result.steps % config.evaluate_every == 0
        if due and result.steps_to_target is None and not schedule.ends_epoch(result.steps):
            look()
        ask()

    if state.epochs:
        report(state.epochs, schedule.epochs)
    with keeper.listening():
        for epoch in range(state.epochs, schedule.epochs):
            accuracy = trainer.epoch(epoch, after_step)
            measures = look(ask)
            result.curve.append(EpochResult(epoch + 1, accuracy, measures[test.task.measure], measures))
            state.epochs += 1
            after_epoch(epoch + 1, trainer.network)
            report(epoch + 1, schedule.epochs)
            ask()
    state.stop_clock()
    trainer.engine.release()
    return trainer.network.eval(), result


class _Trainer:
    def __init__(self, config: VictimConfig, train: Published, world: World, seed: int) -> None:
        self.config, self.train, self.world, self.seed = config, train, world, seed
        self.batches = Batches(config, train, seed, world.device)
        self.network = build_network(config, train, seed, world.device)
        if config.batch_norm == "synchronised":
            synchronise(self.network, world)
        self.optimizer = build_optimizer(config, self.network)
        self.schedule = TrainingSchedule.of(config, len(train))
        self.fast = is_fast(config, world.device)
        self.autocast = autocast(world.device, self.fast)
        self.engine = self._build_engine(self.fast)
        self.state = TrainingState(self.engine, world, seed)
        self.meter = self._build_meter()
        self.adversary = build_adversary(config, seed)

    @property
    def step(self) -> int:
        """Number of steps that are done."""
        return self.state.result.steps

    def begin(self, keeper: Keeper) -> None:
        """Start the clock, where the training was interrupted from there."""
        self.state.begin(keeper.saved())
        if self.meter:
            self.meter.log = self.state.result.gradient_norms

    def epoch(self, number: int, after_step: Callable[[], None] = lambda: None) -> float:
        """One pass over the training set, or what is left of it or of the run; returns the share of right answers."""
        numbers = order(key(self.seed, "victim", number), np.arange(len(self.train), dtype=np.int64))
        before = number * self.schedule.steps_an_epoch
        batches = self.schedule.batches(numbers)[: self.schedule.total - before]
        correct = self.state.correct
        if self.step == before:
            correct.zero_()
        for batch in batches[self.step - before :]:
            self.network.train()
            correct += self._learn(batch, number)
            self.state.count(len(batch))
            after_step()
        return float(self.world.add(correct.clone())) / sum(len(batch) for batch in batches)

    def test(self, test: Published, after_batch: Callable[[], None] = lambda: None) -> Mapping[str, float]:
        """Measures of a set; the ranks take equally many batches, since each may fetch weights from all of them."""
        self.network.eval()
        shares = rank_shares(np.arange(len(test), dtype=np.int64), self.world)
        batches = np.array_split(shares[self.world.rank], -(-max(map(len, shares)) // BATCH))
        tally, infinite = test.task.tally(), torch.zeros((), dtype=torch.int64, device=self.world.device)
        for batch in batches:
            for answered, targets in answers(self.network, test, batch, self.world.device, fast=self.fast):
                tally.add(answered, targets)
                infinite += ~torch.isfinite(answered).all()
            after_batch()
        if int(self.world.add(infinite)):
            # A network of NaN guesses one class, which would pass for protection.
            raise DivergedError("the victim diverged: lower victim.learning_rate")
        return tally.measures(self.world)

    def _learn(self, batch: Ids, epoch: int) -> Tensor:
        """One step; returns how many of our samples were recognised, float64."""
        self._set_rate()
        correct = torch.zeros((), dtype=torch.float64, device=self.world.device)
        shares = rank_shares(batch, self.world)
        mine, times = shares[self.world.rank], sum(map(len, shares)) // len(batch)
        parts, around = np.array_split(mine, self._parts(max(map(len, shares)))), self._places()
        if self.meter:
            self.meter.before_step(self.step, comparable=times == 1)
        for number, (part, move) in enumerate(itertools.product(parts, around), 1):
            with self.engine.part(last=number == len(parts) * len(around)), move(self.network):
                recognised = self._accumulate(part, times * len(batch) * len(around), epoch)
            if move is around[0] and (times == 1 or self.world.leads):
                correct += recognised
            if self.meter:
                self.meter.after_part(len(part))
        if self.meter:
            self.meter.after_parts()
        self.engine.step()
        return correct

    def _accumulate(self, numbers: Ids, share: int, epoch: int) -> Tensor:
        """Add the gradient of a part of the batch, each sample counting 1 / share; how many were recognised."""
        mixed = self.batches.take(numbers, epoch, self.step, self.step / self.schedule.total)
        if self.adversary:
            assert isinstance(mixed, Mixed), "no recipe has few labels and an adversary"
            with self.autocast:
                mixed = attacked(self.adversary, self.network, mixed, self.train.ids[numbers], self.step)
        logits = self._logits(self.engine.network, mixed.images)
        self.engine.backward(mixed.loss(logits, self.train.task) * self.world.size / share)
        return mixed.recognised(logits.detach(), self.train.task)

    def _places(self) -> list[Place]:
        """Where a step takes its gradients: at the weights, or at random ones around them, on all ranks the same."""
        config = self.config
        deviation = config.weight_noise * min(1.0, 2 * self.step / self.schedule.total)
        if deviation == 0:
            return [here]
        return places(deviation, config.weight_noise_draws, self.seed, "victim weights", self.step)

    def _parts(self, share: int) -> int:
        """Parts of a step whose largest share has this number of samples: equally many on all ranks, which meet in
        every part."""
        return -(-share // (self.config.micro_batch or share))

    def _logits(self, network: nn.Module, images: Tensor) -> Tensor:
        with self.autocast, normalising(network, len(images)):
            logits: Tensor = network(images.contiguous(memory_format=torch.channels_last))
        return logits.float()

    def _set_rate(self) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule.rate(self.step)
            if self.config.average_weights:
                group["memory"] = AveragedSGD.MEMORY * (self.step / self.schedule.total) ** 3

    def _build_engine(self, fast: bool) -> Engine:
        if self.config.engine == "ddp":
            return DdpEngine(self.network, self.optimizer, self.world, clip_norm=self.config.clip_norm)
        from hpcule.world.deepspeed_engine import DeepSpeedConfig, DeepSpeedEngine

        share = -(-self.config.batch // self.world.size)
        parts, bf16_weights = self._parts(share), self.config.precision == "bf16-weights"
        config = DeepSpeedConfig(
            zero=self.config.zero,
            offload=self.config.offload,
            bf16=fast and not bf16_weights,
            bf16_weights=bf16_weights,
            clip_norm=self.config.clip_norm,
            micro_batch=-(-share // parts),
            parts=parts,
        )
        return DeepSpeedEngine(self.network, self.optimizer, self.world, config)

    def _build_meter(self) -> GradientMeter | None:
        every = self.config.noise_scale_every
        if every is None:
            return None
        if self.world.size == 1 and self._parts(self.config.batch) < 2:
            raise UsageError(
                "victim.noise_scale_every compares parts of a batch, and a single worker takes it whole: "
                f"set victim.micro_batch to at most {self.config.batch // 2}"
            )
        return GradientMeter(self.engine.network, self.world, every)
