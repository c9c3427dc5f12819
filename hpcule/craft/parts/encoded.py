"""What a frozen encoder makes of samples: their features, and UC's loss with its gradient for a delta they share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from hpcule.config.ranges import setting
from hpcule.config.run import MethodConfig
from hpcule.craft.method import Problem
from hpcule.data.augment import CropFlip
from hpcule.data.schedule import Ghost, samples_of
from hpcule.data.source import Ids
from hpcule.nets.encoder import Encoder
from hpcule.nets.frozen import fold_batch_norms, split_strides
from hpcule.world.exact import Sum
from hpcule.world.gradient_norms import GradientNorms, squared_norm
from hpcule.world.group import World
from hpcule.world.precision import autocast, place


@dataclass(frozen=True, kw_only=True)
class EncoderConfig(MethodConfig):
    """Settings of a frozen encoder, and of how samples get to it."""

    encoder: str = "efficientnet-lite0"
    """Name of the network: efficientnet-lite0, -lite1 or -lite2, resnet18, resnet50 (the authors' choice),
    clip-resnet50, or one of timm's as timm:NAME."""
    checkpoint: str | None = None
    """State dict for the encoder, every key of which must match; None: the published weights."""
    encoder_size: int = setting(224, at_least=32)
    """Samples are resized to this height and width in front of the encoder, delta stays at the samples' own size."""
    ghost: int = setting(32, at_least=1)
    """Samples that go through the encoder together."""
    augment: bool = True
    """Padded crop and flip of the sample, before delta is added."""


def settle(encoder: Encoder, problem: Problem) -> None:
    """Rewrite an encoder to be faster on the samples of a problem, in place, and move it to their device."""
    fold_batch_norms(encoder, torch.zeros(1, *problem.source.shape))
    if problem.autocast and problem.world.device.type == "cpu":
        split_strides(encoder)
    place(encoder, problem.world.device)


def through(encoder: Encoder, images: Tensor, *, bf16: bool) -> Tensor:
    """Features float32 [n, D] of images [n, C, H, W] in [0, 1], differentiable in the images."""
    with autocast(images.device, bf16):
        features: Tensor = encoder(images.contiguous(memory_format=torch.channels_last))
    return features.float()


class Encoded:
    """The samples of a problem, seen through an encoder that is settled here."""

    def __init__(self, config: EncoderConfig, problem: Problem, encoder: Encoder) -> None:
        self.config = config
        self.problem = problem
        self.encoder = encoder
        settle(encoder, problem)

    def features(self, shard: int) -> Any:
        """Features float64 [n, D] of a shard, from the cache where they are there."""
        first, count = self.problem.partition.range(shard)
        config, encoder = self.config, (self.encoder.name, self.encoder.weights_sha256)
        parts = (*encoder, config.encoder_size, config.ghost, self.problem.autocast, first, count)
        return self.problem.cache.get(("features", *parts), lambda: self._encode(shard))

    def gradient(
        self, delta: Tensor, centers: Tensor, goal: int, batch: Sequence[Ghost], purpose: int, group: World
    ) -> tuple[Tensor, dict[str, float], GradientNorms]:
        """The loss of a batch that the ranks of a group share out.

        Args:
            delta: [C, H, W] in units of [0, 1], without a graph.
            centers: of all clusters [p, D], in the space of the features.
            goal: the cluster whose centre's softmax the features' softmax is to come close to.
            batch: any rank may read any sample.
            purpose: key of the augmentation.
            group: the ranks.

        Returns:
            On every rank dL/d delta [C, H, W]; `divergence`, the loss L = mean KL(softmax(centre) || softmax(feature)),
            with `moved`, the share of samples nearest to the goal's centre; and single samples' gradient norms.
        """
        gradient_sum = Sum([delta.shape], delta.device, exact=self.problem.exact)
        target = functional.softmax(centers[goal], dim=0)
        sums = torch.zeros(3, dtype=torch.float64, device=delta.device)
        for ghost in batch:
            if ghost.shard % group.size == group.rank:
                # Each sample has a leaf of its own, so that one backward gives every sample's gradient.
                leaf = delta.expand(ghost.size, *delta.shape).clone().requires_grad_()
                samples = self._augmented(self.problem.reader.take(ghost.shard, ghost.ids), purpose, ghost.ids)
                features = self._through((samples + leaf).clamp(0, 1))
                log_probability = functional.log_softmax(features, dim=1)
                loss = functional.kl_div(log_probability, target.expand_as(log_probability), reduction="sum")
                (gradients,) = torch.autograd.grad(loss, leaf)
                gradient_sum.add([gradients.sum(0)])
                moved = (torch.cdist(features.detach(), centers).argmin(1) == goal).sum()
                sums += torch.stack([loss.detach(), gradients.square().sum(), moved])
        size = samples_of(batch)
        (total,) = gradient_sum.total(group)
        loss_sum, squares, moved_count = group.add(sums).tolist()
        gradient = total / size
        norms = GradientNorms(size, size, squares, float(squared_norm([gradient])))
        return gradient, {"divergence": loss_sum / size, "moved": moved_count / size}, norms

    def _encode(self, shard: int) -> Any:
        ids = self.problem.partition.ids(shard)
        parts = []
        for tile in self.problem.tiles(ids, self.config.ghost):
            samples = self.problem.reader.take(shard, ids[tile])
            with torch.no_grad():
                parts.append(self._through(self.problem.unit_interval(samples)).cpu())
        return torch.cat(parts).double().numpy()

    def _through(self, images: Tensor) -> Tensor:
        return through(self.encoder, images, bf16=self.problem.autocast)

    def _augmented(self, samples: Tensor, purpose: int, ids: Ids) -> Tensor:
        if self.config.augment:
            # The authors crop 224 of 256 pixels: a shift of up to a fourteenth to each side.
            padding = max(1, self.problem.source.shape[2] // 14)
            samples = CropFlip.draw(purpose, ids, padding).apply(samples)
        return self.problem.unit_interval(samples)
