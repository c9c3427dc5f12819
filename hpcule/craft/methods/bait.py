"""BAIT: binding artificial perturbations to incorrect targets (Li, Xu, Cai, Fang, Wu, Lao, Ling, Wang; ICLR 2026,
arXiv 2603.04731).

For victims that start from pretrained weights, as the surrogate f does here. A generator G gives every class c a
pattern N_c = epsilon n_c, where n_c is the mean of G over samples of c. A round is

    f' = f after a step of SGD on CE(f(x + N_y), y) of one batch
    over all samples, batch by batch, a step of Adam on G:   minimise CE(f'(clip(x + epsilon n_t)), t),   t other than y
    the same step of SGD on f itself, with the new patterns

t is the likeliest wrong class in the first third of the rounds, a random one in the second, and the least likely one in
the last: the pattern of t has to win over what x shows, at last where that is hardest. Published is x + N_y.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from hpcule.config.ranges import setting
from hpcule.config.run import BoundedConfig, MethodConfig
from hpcule.craft.method import (
    Event,
    Facts,
    Method,
    Problem,
    Saved,
    Settings,
    ShardResult,
    SharedResult,
    State,
    Step,
    Unit,
    finite,
)
from hpcule.craft.parts.encoded import EncoderConfig
from hpcule.craft.parts.surrogate import Surrogate
from hpcule.data.augment import CropFlip
from hpcule.data.schedule import Ghost, Schedule, samples_of
from hpcule.data.source import Ids, Source
from hpcule.nets.encoder import load_encoder
from hpcule.nets.running_statistics import normalising
from hpcule.nets.transferred import Transferred
from hpcule.nets.unet import build_unet
from hpcule.world.exact import Sum
from hpcule.world.keyed import bits, key
from hpcule.world.precision import autocast, place

RULES = ("likeliest", "random", "least likely")
"""Which wrong class is the target, in the order of the run; each for a third of the rounds."""


@dataclass(frozen=True, kw_only=True)
class BAITConfig(EncoderConfig, BoundedConfig):
    """Defaults are those of the authors' code for CIFAR-10, but for the networks."""

    name: str = "bait"
    encoder: str = "efficientnet-lite0"
    """Name of the pretrained network of which the surrogate is made: efficientnet-lite0, -lite1 or -lite2, resnet18
    (the authors' choice), resnet50, clip-resnet50, or one of timm's as timm:NAME."""
    ghost: int = setting(32, at_least=1)
    """Micro-batch and BatchNorm group: part of the result."""
    rounds: int = setting(90, at_least=1)
    """Rounds of a pass of the generator over all samples and a step of the surrogate; a third of them for each rule by
    which targets are chosen."""
    batch: int = setting(512, at_least=1)
    """Samples of a step of either network, over all workers."""
    learning_rate: float = setting(0.1, above=0)
    """Learning rate of SGD for the surrogate."""
    momentum: float = setting(0.9, at_least=0)
    """Momentum of SGD."""
    weight_decay: float = setting(5e-4, at_least=0)
    """Weight decay of SGD."""
    clip_norm: float | None = setting(5.0, above=0)
    """Largest L2 norm of the surrogate's gradient; null: no limit."""
    generator_rate: float = setting(1e-3, above=0)
    """Learning rate of Adam for the generator."""


@dataclass(frozen=True)
class _Share:
    """One own ghost of a batch."""

    ids: Ids
    clean: Tensor
    labels: Tensor


class BoundTargets(Method[BAITConfig]):
    """A pattern a class, which says that class louder than an image says what it shows."""

    facts: ClassVar[Facts] = Facts(
        title="BAIT: binding artificial perturbations to incorrect targets",
        data="images",
        task="classification by networks with pretrained weights",
        intent="availability",
        needs_labels=True,
        bounded=True,
        needs_surrogate=True,
        claimed="fine-tuning of pretrained networks of several architectures",
        paper="arXiv 2603.04731",
        cost="90 noise passes through a pretrained network, 60 forwards, and 180 batches of training",
        weaknesses="one pattern a class: found by averaging, by projection, or by one leaked original a class",
        needs_checkpoint=True,
    )
    config_class: ClassVar[type[MethodConfig]] = BAITConfig
    loss: ClassVar[str | None] = "cross_entropy"
    presets: ClassVar[Mapping[str, Settings]] = {
        "small": {"encoder_size": 64, "rounds": 30, "batch": 128},
        "smoke": {"encoder_size": 64, "rounds": 3, "batch": 64},
    }

    def __init__(self, config: BAITConfig, problem: Problem) -> None:
        self.config = config
        self.problem = problem
        source, device = problem.source, problem.world.device
        seeds = [key(problem.seed, "bait", part) % 2**63 for part in ("surrogate", "generator")]
        checkpoint = Path(config.checkpoint) if config.checkpoint else None
        encoder = load_encoder(config.encoder, checkpoint, input_size=config.encoder_size)
        self.surrogate = Surrogate(
            Transferred(encoder, source.class_count, seeds[0]),
            problem,
            learning_rate=config.learning_rate,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            clip_norm=config.clip_norm,
        )
        self.generator = build_unet(channels=source.shape[0], seed=seeds[1])
        place(self.generator, device)
        self.optimizer = torch.optim.Adam(self.generator.parameters(), lr=config.generator_rate)
        self.model_schedule, self.noise_schedule = (
            Schedule(problem.partition, config.ghost, config.batch, problem.seed, f"bait {part}")
            for part in ("model", "noise")
        )
        self._class_shape = torch.Size([source.class_count, *source.shape])
        self._outputs = self._sums_by_class()
        self._pulls = Sum([self._class_shape], device, exact=problem.exact)
        self._moves = Sum([weight.shape for weight in self.generator.parameters()], device, exact=problem.exact)
        self.patterns = torch.zeros(self._class_shape, device=device)
        """N_c in units of [0, 1], as of the last batch that had the class."""
        self.ahead: nn.Module | None = None
        """The surrogate f' of a round that has begun."""
        self.round = 0
        self.batch = 0

    @classmethod
    def unit(cls, config: BAITConfig) -> Unit:
        """Name the unit that shares a delta: the class."""
        return "class"

    @classmethod
    def groups(cls, config: BAITConfig, source: Source) -> int:
        """One delta a class."""
        return source.class_count

    @property
    def epsilon(self) -> float:
        """The budget in units of [0, 1]."""
        return self.config.epsilon / self.problem.source.levels

    @property
    def rule(self) -> str:
        """How targets are chosen in this round."""
        return RULES[len(RULES) * self.round // self.config.rounds]

    def run(self) -> Iterator[Event]:
        """Round by round, all ranks together; then every class gets the mean of what the generator makes of it."""
        while self.round < self.config.rounds:
            if self.ahead is None:
                self.ahead = self._look_ahead()
            batches = self.noise_schedule.epoch(self.round)
            while self.batch < len(batches):
                self.problem.expect(batches[(self.batch + 1) % len(batches)])
                figures = self._bind(self.ahead, batches[self.batch])
                self.batch += 1
                yield Step("noise", self.batch, len(batches), figures, batches=[samples_of(batches[self.batch - 1])])
            batch = self.model_schedule.at(self.round)
            norms = self.surrogate.train(batch, self._load)
            self.round, self.batch, self.ahead = self.round + 1, 0, None
            figures = {"step": self.round - 1}
            yield Step("round", self.round, self.config.rounds, figures, norms, [samples_of(batch)])
        yield from self._publish()

    def state(self) -> State:
        """All networks, the patterns, and the place in the rounds."""
        return State(
            {
                "round": self.round,
                "batch": self.batch,
                "surrogate": self.surrogate.state(),
                "ahead": None if self.ahead is None else self.ahead.state_dict(),
                "generator": self.generator.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "patterns": self.patterns,
            }
        )

    def restore(self, saved: Saved) -> None:
        """Restore the networks, the patterns and the round."""
        shared = saved.load("shared")
        self.round, self.batch = shared["round"], shared["batch"]
        self.surrogate.restore(shared["surrogate"])
        self.generator.load_state_dict(shared["generator"])
        self.optimizer.load_state_dict(dict(shared["optimizer"]))
        self.patterns = shared["patterns"].to(self.problem.world.device)
        if shared["ahead"] is not None:
            self.ahead = self._copied()
            self.ahead.load_state_dict(shared["ahead"])

    def _look_ahead(self) -> nn.Module:
        """The surrogate one step further; it itself stays where it is."""
        before = copy.deepcopy(self.surrogate.state())
        self.surrogate.train(self.model_schedule.at(self.round), self._load)
        ahead = self._copied()
        self.surrogate.restore(before)
        return ahead

    def _copied(self) -> nn.Module:
        """A copy of the surrogate in training mode, without parameter gradients. Its running statistics stay as they
        are: every rank would update them with other ghosts."""
        copied = copy.deepcopy(self.surrogate.network).requires_grad_(False)
        for layer in copied.modules():
            if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                layer.momentum = 0.0
        return copied

    def _load(self, ghost: Ghost) -> tuple[Tensor, Tensor]:
        """x + N_y, deliberately not clipped to [0, 1], and the labels: what a step of the surrogate sees."""
        share = self._share(ghost, "model")
        return share.clean + self.patterns[share.labels], share.labels

    def _share(self, ghost: Ghost, stage: str) -> _Share:
        """Samples in [0, 1], with a crop and a flip of this round."""
        samples = self.problem.reader.take(ghost.shard, ghost.ids)
        if self.config.augment:
            purpose = key(self.problem.seed, "bait augment", stage, self.round)
            samples = CropFlip.draw(purpose, ghost.ids, max(1, samples.shape[2] // 8)).apply(samples)
        clean = self.problem.unit_interval(samples)
        return _Share(ghost.ids, clean, torch.from_numpy(self.problem.classes(ghost.ids)).to(clean.device))

    def _bind(self, ahead: nn.Module, batch: Sequence[Ghost]) -> dict[str, float]:
        """One step of the generator.

        All ranks get the batch's patterns first, then the gradient for them; each sample's output has its class's
        share of it.
        """
        world, size = self.problem.world, samples_of(batch)
        shares = [self._share(ghost, "noise") for ghost in self.problem.mine(batch)]
        for share in shares:
            self._add_outputs(self._outputs, share.clean, share.labels)
        means, counts = self._means(self._outputs)
        self.patterns[counts > 0] = self.epsilon * means[counts > 0]
        figures = torch.zeros(2, dtype=torch.float64, device=world.device)
        for share in shares:
            leaf, targets = means.clone().requires_grad_(), self.targets(ahead, share)
            logits = self._logits(ahead, (share.clean + self.epsilon * leaf[targets]).clamp(0, 1))
            loss = functional.cross_entropy(logits, targets, reduction="sum")
            self._pulls.add(torch.autograd.grad(loss, leaf))
            figures += torch.stack([loss.detach(), (logits.argmax(1) == targets).sum()])
        (pull,) = self._pulls.total(world)
        pull = finite(pull) / counts.clamp_min(1)[:, None, None, None]
        weights = list(self.generator.parameters())
        for share in shares:
            self._moves.add(torch.autograd.grad(self._generated(share.clean), weights, pull[share.labels]))
        for weight, gradient in zip(weights, self._moves.total(world), strict=True):
            weight.grad = gradient / size
        self.optimizer.step()
        loss_sum, bound = world.add(figures).tolist()
        return {"cross_entropy": loss_sum / size, "bound": bound / size}

    def targets(self, ahead: nn.Module, share: _Share) -> Tensor:
        """A class for each sample [n], other than its own, by the rule of this round."""
        classes = self.problem.source.class_count
        if self.rule == "random":
            words = bits(key(self.problem.seed, "bait target", self.round), share.ids, 1)[:, 0]
            steps = (words % np.uint64(max(1, classes - 1))).astype(np.int64)
            return (share.labels + 1 + torch.from_numpy(steps).to(share.labels.device)) % classes
        with torch.no_grad():
            logits = self._logits(ahead, share.clean)
        own = functional.one_hot(share.labels, classes).bool()
        if self.rule == "likeliest":
            return logits.masked_fill(own, -torch.inf).argmax(1)
        return logits.masked_fill(own, torch.inf).argmin(1)

    def _logits(self, ahead: nn.Module, images: Tensor) -> Tensor:
        """What f' says of images [n, C, H, W], normalised by their own statistics; float32 [n, K]."""
        with autocast(images.device, self.problem.autocast), normalising(ahead, len(images)):
            logits: Tensor = ahead(images.contiguous(memory_format=torch.channels_last))
        return logits.float()

    def _generated(self, clean: Tensor) -> Tensor:
        """The generator's output for samples in [0, 1], in (-1, 1): float32 [n, C, H, W]."""
        with autocast(clean.device, self.problem.autocast):
            output: Tensor = self.generator(clean.contiguous(memory_format=torch.channels_last))
        return output.float()

    def _sums_by_class(self) -> Sum:
        """An empty sum of the generator's outputs by class [K, C, H, W], and of their numbers [K]."""
        shapes = [self._class_shape, self._class_shape[:1]]
        return Sum(shapes, self.problem.world.device, exact=self.problem.exact)

    def _add_outputs(self, sums: Sum, clean: Tensor, labels: Tensor) -> None:
        with torch.no_grad():
            outputs = self._generated(clean)
        by_class = torch.zeros(self._class_shape, device=outputs.device).index_add_(0, labels, outputs)
        sums.add([by_class, torch.bincount(labels, minlength=len(by_class)).float()])

    def _means(self, sums: Sum) -> tuple[Tensor, Tensor]:
        """Mean output by class [K, C, H, W], 0 for a class without samples, and the classes' numbers of samples [K]."""
        total, counts = sums.total(self.problem.world)
        return finite(total) / counts.clamp_min(1)[:, None, None, None], counts

    def _publish(self) -> Iterator[Event]:
        """Give each class the mean over all of its samples, in levels, unclipped: no single sample's box binds it."""
        problem, sums = self.problem, self._sums_by_class()
        for turn in range(problem.rounds):
            if turn < len(problem.owned):
                ids = problem.partition.ids(problem.owned[turn])
                for tile in problem.tiles(ids):
                    clean = problem.unit_interval(problem.reader.take(problem.owned[turn], ids[tile]))
                    self._add_outputs(sums, clean, torch.from_numpy(problem.classes(ids[tile])).to(clean.device))
            yield Step("patterns", turn + 1, problem.rounds)
        means, _ = self._means(sums)
        bound = int(self.config.epsilon)
        levels = (means * self.config.epsilon).round().to(torch.int32).clamp_(-bound, bound)
        yield SharedResult(levels.cpu().numpy())
        for shard in problem.owned:
            if shard not in problem.done:
                yield ShardResult(shard, group=problem.classes(problem.partition.ids(shard)))
