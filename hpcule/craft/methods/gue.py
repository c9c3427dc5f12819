"""GUE: game unlearnable examples (Liu, Wang, Gao; AAAI 2024, arXiv 2401.17523).

A game: the follower theta learns from what is published, g(A, theta) = CE(f_theta(x + epsilon A(x)), y), and the
leader, the generator A, wants the theta that comes of it to be wrong on clean samples:

    min over A of F(theta) = mean of max_{k other than y} CE(f_theta(x), k),   theta in argmin of g(A, .)

by a first-order method for bilevel problems (BOME: Liu et al. 2022, arXiv 2209.08709). A batch takes theta' some
steps further down g; with q = g(A, theta) - g(A, theta') and gradients over A and theta together, theta' held fixed,
both move along

    grad F + w grad q,   w = max(0, drive - <grad F, grad q> / |grad q|^2)
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from hpcule.config.ranges import setting
from hpcule.config.run import BoundedConfig, LocalConfig, MethodConfig
from hpcule.craft.method import Event, Facts, Method, Problem, Saved, Settings, ShardResult, State, Step, finite
from hpcule.craft.parts.levels import to_levels
from hpcule.data.schedule import Ghost, Schedule, samples_of
from hpcule.nets import build
from hpcule.nets.unet import build_unet
from hpcule.world.exact import Sum
from hpcule.world.keyed import key
from hpcule.world.precision import autocast, place


@dataclass(frozen=True, kw_only=True)
class GUEConfig(BoundedConfig, LocalConfig):
    """Defaults are those of the authors' code for CIFAR-10."""

    name: str = "gue"
    surrogate: str = "resnet18"
    """Network of the follower, such as convnet, resnet-tiny, resnet-small or resnet18."""
    epochs: int = setting(50, at_least=1)
    """Passes over all samples."""
    batch: int = setting(256, at_least=1)
    """Samples of a step of both players, over all workers."""
    ghost: int = setting(32, at_least=1)
    """Micro-batch and BatchNorm group: part of the result."""
    learning_rate: float = setting(0.01, above=0)
    """Learning rate of the follower."""
    generator_rate: float = setting(0.1, above=0)
    """Learning rate of the generator."""
    inner_steps: int = setting(10, at_least=1)
    """Steps of Adam that lead to theta'."""
    inner_rate: float = setting(1e-4, above=0)
    """Learning rate of these steps."""
    drive: float = setting(1.5, above=0)
    """How strongly the follower is kept at learning from the published samples."""


@dataclass(frozen=True)
class _Share:
    """One own ghost of a batch."""

    clean: Tensor
    labels: Tensor
    delta: Tensor
    """Deltas of the generator, with its graph."""
    weight: float
    """1 / the batch's samples."""

    def seen(self) -> Tensor:
        """The perturbed samples as the start of a graph of their own."""
        return (self.clean + self.delta.detach()).requires_grad_()


class GameUnlearnable(Method[GUEConfig]):
    """A generator that plays against the network that learns from what it makes."""

    facts: ClassVar[Facts] = Facts(
        title="GUE: game unlearnable examples",
        data="images",
        task="classification",
        intent="availability",
        needs_labels=True,
        bounded=True,
        needs_surrogate=True,
        claimed="a generator trained on a part of the samples protects the others too",
        paper="arXiv 2401.17523",
        cost="650 training passes, and 50 through a small U-Net",
        weaknesses="the deltas are a function of the images, which an attacker with some clean ones can learn to undo",
    )
    config_class: ClassVar[type[MethodConfig]] = GUEConfig
    presets: ClassVar[Mapping[str, Settings]] = {
        "small": {"surrogate": "resnet-tiny", "epochs": 8},
        "smoke": {"surrogate": "resnet-tiny", "epochs": 2, "batch": 64},
    }

    def __init__(self, config: GUEConfig, problem: Problem) -> None:
        self.config = config
        self.problem = problem
        channels, height, width = problem.source.shape
        seeds = [key(problem.seed, "gue", part) % 2**63 for part in ("follower", "generator")]
        classes, device = problem.source.class_count, problem.world.device
        self.follower = build(config.surrogate, channels=channels, classes=classes, size=(height, width), seed=seeds[0])
        for layer in self.follower.modules():
            if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                layer.track_running_stats = False  # nobody evaluates the follower
        self.generator = build_unet(channels=channels, seed=seeds[1])
        place(self.follower, device)
        place(self.generator, device)
        self.schedule = Schedule(problem.partition, config.ghost, config.batch, problem.seed, "gue")
        of_follower = [parameter.shape for parameter in self.follower.parameters()]
        of_generator = [parameter.shape for parameter in self.generator.parameters()]
        self._inner = Sum(of_follower, device, exact=problem.exact)
        self._outer = Sum([*of_follower, *of_follower, *of_generator, torch.Size([3])], device, exact=problem.exact)
        self.step = 0

    def run(self) -> Iterator[Event]:
        """Play, all ranks together; then each rank's own shards go through the generator."""
        total = self.config.epochs * self.schedule.steps
        while self.step < total:
            batch = self.schedule.at(self.step)
            figures = {"step": self.step, **self._play(batch)}
            self.step += 1
            yield Step("game", self.step, total, figures, batches=[samples_of(batch)])
        owned = [shard for shard in self.problem.owned if shard not in self.problem.done]
        for number, shard in enumerate(owned, start=1):
            yield self._answer(shard)
            yield Step("noise", number, len(owned))

    def state(self) -> State:
        """Both networks; theta' starts again with each batch."""
        networks = {"follower": self.follower.state_dict(), "generator": self.generator.state_dict()}
        return State({"step": self.step, **networks})

    def restore(self, saved: Saved) -> None:
        """Restore both networks and the epoch."""
        shared = saved.load("shared")
        self.step = shared["step"]
        self.follower.load_state_dict(shared["follower"])
        self.generator.load_state_dict(shared["generator"])

    def _play(self, batch: Sequence[Ghost]) -> dict[str, float]:
        """One batch: theta' by some steps of Adam, then one step of both players."""
        shares = [self._share(ghost, 1 / samples_of(batch)) for ghost in self.problem.mine(batch)]
        ahead = self._ahead(shares)
        parameters, count = list(self.follower.parameters()), len(list(self.follower.parameters()))
        for share in shares:
            self._outer.add(self._gradients(share, ahead))
        totals = self._outer.total(self.problem.world)
        leads, lags, moves, losses = totals[:count], totals[count : 2 * count], totals[2 * count : -1], totals[-1]
        product = sum(float((a.double() * b.double()).sum()) for a, b in zip(leads, lags, strict=True))
        square = sum(float(part.double().square().sum()) for part in [*lags, *moves])
        force = max(0.0, self.config.drive - product / square) if square > 0 else 0.0
        finite(torch.tensor([product, square]))
        with torch.no_grad():
            for parameter, lead, lag in zip(parameters, leads, lags, strict=True):
                parameter.sub_(lead + force * lag, alpha=self.config.learning_rate)
            for parameter, move in zip(self.generator.parameters(), moves, strict=True):
                parameter.sub_(move, alpha=force * self.config.generator_rate)
        leader, here, there = losses.tolist()
        return {"leader": leader, "follower": here, "lag": here - there, "force": force}

    def _share(self, ghost: Ghost, weight: float) -> _Share:
        clean = self.problem.unit_interval(self.problem.reader.take(ghost.shard, ghost.ids))
        labels = torch.from_numpy(self.problem.classes(ghost.ids)).to(clean.device)
        return _Share(clean, labels, self._delta(clean), weight)

    def _delta(self, clean: Tensor) -> Tensor:
        """epsilon A(x) [n, C, H, W] in units of [0, 1], not clipped to the box."""
        with autocast(self.problem.world.device, self.problem.autocast):
            output: Tensor = self.generator(clean.contiguous(memory_format=torch.channels_last))
        return output.float() * (self.config.epsilon / self.problem.source.levels)

    def _logits(self, network: nn.Module, samples: Tensor) -> Tensor:
        # A single sample twice: BatchNorm takes its own statistics, and leaves channels with one value their bias.
        seen = samples if len(samples) > 1 else samples.expand(2, -1, -1, -1)
        with autocast(self.problem.world.device, self.problem.autocast):
            logits: Tensor = network(seen.contiguous(memory_format=torch.channels_last))
        return logits[: len(samples)].float()

    def _loss(self, network: nn.Module, samples: Tensor, share: _Share) -> Tensor:
        """A ghost's part of g."""
        return functional.cross_entropy(self._logits(network, samples), share.labels, reduction="sum") * share.weight

    def _ahead(self, shares: Sequence[_Share]) -> nn.Module:
        """Return the network at theta', one step of gradient descent ahead."""
        ahead = copy.deepcopy(self.follower)
        optimizer = torch.optim.Adam(ahead.parameters(), lr=self.config.inner_rate)
        for _ in range(self.config.inner_steps):
            for share in shares:
                loss = self._loss(ahead, share.seen().detach(), share)
                self._inner.add(torch.autograd.grad(loss, list(ahead.parameters())))
            for parameter, gradient in zip(ahead.parameters(), self._inner.total(self.problem.world), strict=True):
                parameter.grad = gradient
            optimizer.step()
        return ahead

    def _gradients(self, share: _Share, ahead: nn.Module) -> list[Tensor]:
        """A ghost's part of grad F and grad q by theta, of grad q by A, and of F, g(A, theta) and g(A, theta')."""
        parameters = list(self.follower.parameters())
        log_probabilities = functional.log_softmax(self._logits(self.follower, share.clean), dim=1)
        own = functional.one_hot(share.labels, log_probabilities.shape[1]).bool()
        leader = -log_probabilities.masked_fill(own, torch.inf).amin(1).sum() * share.weight
        leads = torch.autograd.grad(leader, parameters)
        seen = share.seen()
        here = self._loss(self.follower, seen, share)
        *lags, pull = torch.autograd.grad(here, [*parameters, seen])
        there = self._loss(ahead, seen, share)
        (push,) = torch.autograd.grad(there, seen)
        moves = torch.autograd.grad(share.delta, list(self.generator.parameters()), pull - push)
        return [*leads, *lags, *moves, torch.stack([leader, here, there]).detach()]

    def _answer(self, shard: int) -> ShardResult:
        source, ids, parts = self.problem.source, self.problem.partition.ids(shard), []
        for tile in self.problem.tiles(ids):
            samples = self.problem.reader.take(shard, ids[tile])
            with torch.no_grad():
                delta = finite(self._delta(self.problem.unit_interval(samples)))
            parts.append(to_levels(delta, samples, source.levels, self.config.epsilon, self.config.flat))
        return ShardResult(shard, delta=np.concatenate(parts))
