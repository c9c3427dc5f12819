"""Victims whose last step fits a linear layer to features that are already learned.

`linear-probe` fits it to the features of a network that was trained elsewhere: no owner can rule out that an attacker
has such weights, and those for ImageNet are public.

`dfr` is deep feature re-weighting: the last layer of a trained victim is fitted again, to clean samples that the
attacker has. A network that classifies by the perturbation may still encode the image in its other features
(Kirichenko, Izmailov, Wilson, ICLR 2023, arXiv 2204.02937; on unlearnable data Sandoval-Segura et al., NeurIPS 2023,
arXiv 2305.19254, with 5,000 clean images of 50,000).
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from hpcule.data.source import Ids
from hpcule.nets import Featured
from hpcule.nets.logistic import logistic_regression
from hpcule.victim.config import VictimConfig
from hpcule.victim.keeper import Keeper
from hpcule.victim.network import is_fast, trained_encoder
from hpcule.victim.published import Published
from hpcule.victim.result import EpochResult, VictimResult
from hpcule.victim.testing import BATCH, answers
from hpcule.world.group import World
from hpcule.world.precision import place

Encode = Callable[[Tensor], Tensor]
"""A function from images [b, C, H, W] in [0, 1] to features [b, d]."""
Encoded = tuple[Tensor, Tensor]
"""Features [n, d] of samples, and their labels [n]."""


@dataclass(frozen=True)
class LinearLayer:
    """Features [n, d] times `weights` [d, classes], plus `bias` [classes], are logits."""

    weights: Tensor
    bias: Tensor

    @classmethod
    def fitted(cls, features: Tensor, labels: Tensor, classes: int) -> LinearLayer:
        """The least cross-entropy on features [n, d], searched for at unit variance."""
        mean, deviation = features.mean(0), features.std(0).clamp_min(1e-6)
        weights, bias = logistic_regression((features - mean) / deviation, labels, classes)
        return cls(weights / deviation[:, None], bias - mean / deviation @ weights)

    def logits(self, features: Tensor) -> Tensor:
        """Logits [n, classes] of features [n, d]."""
        return features @ self.weights + self.bias

    def accuracy(self, features: Tensor, labels: Tensor) -> float:
        """Share of rows whose largest logit is that of their label."""
        return float((self.logits(features).argmax(1) == labels).float().mean())

    def tested(self, epoch: int, train: float, features: Tensor, test: Published, world: World) -> EpochResult:
        """What the layer reaches after an epoch of learning features.

        Args:
            epoch: counted from 1.
            train: accuracy on the training set.
            features: of `test` [n, d].
            test: clean samples.
            world: of a rank, which has them all.
        """
        tally = test.task.tally()
        tally.add(self.logits(features), test.labels.to(features.device))
        measures = tally.measures(world.alone())
        return EpochResult(epoch, train, measures[test.task.measure], measures)

    def put_into(self, linear: nn.Linear) -> None:
        """Replace a layer's weights."""
        with torch.no_grad():
            linear.weight.copy_(self.weights.t())
            linear.bias.copy_(self.bias)


def train_probe(
    config: VictimConfig, train: Published, test: Published, world: World, seed: int, keeper: Keeper | None = None
) -> VictimResult:
    """Fit a linear layer to a trained encoder's features of `train`, and test it on `test`; nothing of it is random.

    Of the settings network, checkpoint, input size, precision and countermeasures count, and the seed for the record.
    `keeper` keeps the features that are computed.

    Raises:
        UsageError: no encoder has this name, or it needs a package that is not installed.
        DataError: the weights are absent or not those of this network, or the samples have other than 1 or 3 channels.
    """
    result, keeper = VictimResult(seed), keeper or Keeper(world)
    start = time.perf_counter()
    encoder = trained_encoder(config)
    place(encoder, world.device)
    known = cast("dict[str, Tensor]", dict(keeper.saved() or {}))

    def encoded(name: str, samples: Published) -> Encoded:
        def ask(rows: Sequence[Tensor]) -> None:
            keeper.ask(lambda: {**known, name: torch.cat(list(rows))})

        fast = is_fast(config, world.device)
        known[name], labels = all_features(encoder, samples, world, fast=fast, known=known.get(name), after_batch=ask)
        return known[name], labels

    with keeper.listening():
        trained, (tested, _) = encoded("train", train), encoded("test", test)
    layer = LinearLayer.fitted(*trained, train.source.class_count)
    result.curve.append(layer.tested(1, layer.accuracy(*trained), tested, test, world))
    result.seconds = time.perf_counter() - start
    return result


def refit(
    network: nn.Module, result: VictimResult, config: VictimConfig, owned: Published, test: Published, world: World
) -> VictimResult:
    """Replace the last layer, in place, by the optimum on `owned`, BatchNorm statistics staying; the new result.

    Args:
        network: one of `NETS`, in evaluation mode, the same on every rank.
        result: its last test gives way to one with the new layer.
        config: its recipe.
        owned: clean samples.
        test: clean samples of the same task.
        world: the ranks that share the samples out.
    """
    fast = is_fast(config, world.device)
    encode = cast("Featured", network).features
    layer = LinearLayer.fitted(*all_features(encode, owned, world, fast=fast), owned.source.class_count)
    layer.put_into(cast("nn.Linear", network.linear))
    features, _ = all_features(encode, test, world, fast=fast)
    tested = layer.tested(result.last.epoch, result.last.train, features, test, world)
    return dataclasses.replace(result, curve=[*result.curve[:-1], tested])


def probed(
    epoch: int,
    encode: Encode,
    train: Published,
    test: Published,
    world: World,
    *,
    fast: bool,
    after_batch: Callable[[Sequence[Tensor]], None] = lambda rows: None,
) -> EpochResult:
    """What a linear layer reaches after an epoch, fitted to the training set; see `all_features`."""
    trained, (tested, _) = (all_features(encode, s, world, fast=fast, after_batch=after_batch) for s in (train, test))
    layer = LinearLayer.fitted(*trained, train.source.class_count)
    return layer.tested(epoch, layer.accuracy(*trained), tested, test, world)


def all_features(
    encode: Encode,
    samples: Published,
    world: World,
    *,
    fast: bool,
    known: Tensor | None = None,
    after_batch: Callable[[Sequence[Tensor]], None] = lambda rows: None,
) -> tuple[Tensor, Tensor]:
    """Features [n, d] of all samples as they are, and their labels [n], on every rank; each computes a share.

    Args:
        encode: a network in evaluation mode, or its features; the same on every rank.
        samples: the samples that it reads.
        world: the ranks.
        fast: in bf16.
        known: features of the first samples, which are not computed again.
        after_batch: called with all features until then, in parts.
    """
    rows = [] if known is None else [known.to(world.device)]
    size = BATCH * world.size
    for first in range(sum(map(len, rows)), len(samples), size):
        numbers = np.arange(first, min(first + size, len(samples)), dtype=np.int64)
        sharing = world if len(numbers) >= world.size else world.alone()
        parts = np.array_split(numbers, sharing.size)
        pairs = answers(encode, samples, parts[sharing.rank], world.device, fast=fast)
        rows.append(gathered(torch.cat([features for features, _ in pairs]), parts, sharing))
        after_batch(rows)
    return torch.cat(rows), samples.labels.to(world.device)


def gathered(rows: Tensor, parts: Sequence[Ids], world: World) -> Tensor:
    """The rows [n, d] of all ranks, in their order; gradients flow to this rank's own alone.

    Args:
        rows: as many as this rank has samples, or a multiple of that.
        parts: each rank's samples.
        world: the ranks.
    """
    if world.size == 1:
        return rows
    times = len(rows) // len(parts[world.rank])
    counts = [times * len(part) for part in parts]
    start = sum(counts[: world.rank])
    everything = torch.zeros(sum(counts), rows.shape[1], dtype=rows.dtype, device=rows.device)
    everything[start : start + len(rows)] = rows.detach()
    # Each row comes from one rank, and adding zeros to it is exact in any order.
    world.add(everything)
    return torch.cat([everything[:start], rows, everything[start + len(rows) :]])
