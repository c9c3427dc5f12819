"""Contrastive learners on any of our networks: SimCLR, MoCo v2, BYOL and SimSiam, with heads, momentum branches and a
queue.

Two views of each sample go in; out come queries and keys, rows of length 1 that belong together. Heads are those of
Wang, Zhu, Gao's contrastive victims (arXiv 2402.04010), four times as wide inside as the features.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from hpcule.nets import build
from hpcule.nets.contrastive_losses import info_nce, nt_xent, regression
from hpcule.nets.seeded import seeded_weights

Learner = Literal["simclr", "moco", "byol", "simsiam"]
EMBEDDING = 128
"""Length of an embedding; SimSiam's are as long as its head is wide inside."""
WIDENING = 4
"""Hidden units of a head a feature: 2,048 for ResNet-18's 512."""


class Contrastive(nn.Module, ABC):
    """An encoder with a projection head."""

    def __init__(self, encoder: nn.Module, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature
        self.features = _without_last_layer(encoder)
        self.online = nn.Sequential(encoder, self.head())

    @abstractmethod
    def head(self) -> nn.Module:
        """Features [n, f] to embeddings [n, d]."""

    @abstractmethod
    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Queries and keys, float32 of length 1, of two views [n, C, H, W]; the first n rows are the samples'."""

    @abstractmethod
    def loss(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Summed over the samples."""

    @property
    def branches(self) -> list[nn.Module]:
        """What images go through."""
        return [self.online]

    def follow(self) -> None:
        """Update the parts that do not learn by gradients, after an optimizer step."""

    def embed(self, branch: nn.Module, images: Tensor) -> Tensor:
        """Rows of length 1, float32, computed in the weights' precision."""
        dtype = next(branch.parameters()).dtype
        return normalized(branch(images.to(dtype, memory_format=torch.channels_last)))


class SimCLR(Contrastive):
    """One branch; the negatives of a view are the other samples' views of its group."""

    def head(self) -> nn.Module:
        """Build a projection head with BatchNorm after each layer."""
        return perceptron(self.features, norm=True, last_norm=True)

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings [n, d] of each view."""
        queries, keys = self.embed(self.online, torch.cat([first, second])).chunk(2)
        return queries, keys

    def loss(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Compute the NT-Xent loss, summed over the group."""
        return nt_xent(queries, keys, self.temperature)


class Momentum(Contrastive):
    """With a target branch: a running mean of the online branch's weights, with BatchNorm statistics of its own.

    Its weights need no gradient; one with respect to the images flows through it as through the other.
    """

    def __init__(self, encoder: nn.Module, temperature: float, momentum: float) -> None:
        super().__init__(encoder, temperature)
        self.momentum = momentum
        self.target = copy.deepcopy(self.online).requires_grad_(False)

    @property
    def branches(self) -> list[nn.Module]:
        """Both branches: the online network and the target."""
        return [self.online, self.target]

    @torch.no_grad()
    def follow(self) -> None:
        """Move the target's weights toward the online branch's."""
        for own, other in zip(self.target.parameters(), self.online.parameters(), strict=True):
            own.lerp_(other, 1 - self.momentum)


class MoCo(Momentum):
    """MoCo v2: the first view is the query, the second the key; negatives come from a queue of earlier keys."""

    queue: Tensor

    def __init__(self, encoder: nn.Module, temperature: float, momentum: float, queue: int) -> None:
        super().__init__(encoder, temperature, momentum)
        self.register_buffer("queue", normalized(torch.randn(queue, EMBEDDING)))

    def head(self) -> nn.Module:
        """Build a projection head without BatchNorm."""
        return perceptron(self.features, norm=False, last_norm=False)

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """[n, d] each."""
        return self.embed(self.online, first), self.embed(self.target, second)

    def loss(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Compute the InfoNCE loss against the queue, summed over the group."""
        return info_nce(queries, keys, self.queue.float(), self.temperature)

    def enqueue(self, keys: Tensor) -> None:
        """Put a batch's keys [n, d] into the queue, from which the oldest fall out."""
        self.queue.copy_(torch.cat([keys, self.queue])[: len(self.queue)])


class BYOL(Momentum):
    """Each view's prediction, by a head more, of the other's embedding in the target branch; no negatives."""

    def __init__(self, encoder: nn.Module, temperature: float, momentum: float) -> None:
        super().__init__(encoder, temperature, momentum)
        self.predictor = perceptron(EMBEDDING, norm=True, last_norm=False, hidden=WIDENING * self.features)

    def head(self) -> nn.Module:
        """Build a projection head with BatchNorm after its hidden layer."""
        return perceptron(self.features, norm=True, last_norm=False)

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """[2n, d] each: predictions from both views, and what the other view is."""
        views = torch.cat([first, second])
        queries = self.embed(nn.Sequential(self.online, self.predictor), views)
        return queries, self.embed(self.target, views).roll(len(first), 0)

    def loss(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Squared distances, of both views."""
        return regression(queries, keys)


class SimSiam(Contrastive):
    """Each view's prediction of the other's embedding in the same branch, through which no gradient comes back."""

    def __init__(self, encoder: nn.Module, temperature: float) -> None:
        super().__init__(encoder, temperature)
        wide = WIDENING * self.features
        self.predictor = perceptron(wide, norm=True, last_norm=False, hidden=self.features, outputs=wide)

    def head(self) -> nn.Module:
        """Build a projection head with BatchNorm after each layer, whose output is as wide as its hidden layer."""
        return perceptron(self.features, norm=True, last_norm=True, outputs=WIDENING * self.features)

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """[2n, d] each: predictions from both views, and what the other view is."""
        views = torch.cat([first, second]).to(memory_format=torch.channels_last)
        embeddings = self.online(views)
        return normalized(self.predictor(embeddings)), normalized(embeddings.detach()).roll(len(first), 0)

    def loss(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Squared distances, of both views: four times the authors' halved negative cosines, but for a constant."""
        return regression(queries, keys)


def build_learner(
    kind: Learner,
    network: str,
    *,
    channels: int,
    size: tuple[int, int],
    seed: int,
    temperature: float,
    momentum: float,
    queue: int,
) -> Contrastive:
    """A learner in training mode, whose initial weights and queue depend on `seed` alone.

    Args:
        kind: simclr, moco, byol or simsiam.
        network: the encoder, by the name of a classifier, whose last layer is left out.
        channels: of the images.
        size: (H, W) of the images.
        seed: of the weights.
        temperature: of SimCLR's and MoCo's softmax.
        momentum: of MoCo's and BYOL's target branch.
        queue: MoCo's keys.

    Raises:
        UsageError: no network has this name.
    """
    encoder = build(network, channels=channels, classes=1, size=size, seed=seed)
    with seeded_weights(seed ^ 1):
        if kind == "simclr":
            return SimCLR(encoder, temperature)
        if kind == "moco":
            return MoCo(encoder, temperature, momentum, queue)
        if kind == "byol":
            return BYOL(encoder, temperature, momentum)
        return SimSiam(encoder, temperature)


def perceptron(
    inputs: int, *, norm: bool, last_norm: bool, hidden: int | None = None, outputs: int = EMBEDDING
) -> nn.Sequential:
    """Two linear layers with a ReLU between them, and BatchNorm after each where wanted."""
    hidden = hidden or WIDENING * inputs
    inner = [nn.BatchNorm1d(hidden)] if norm else []
    outer = [nn.BatchNorm1d(outputs)] if last_norm else []
    return nn.Sequential(nn.Linear(inputs, hidden), *inner, nn.ReLU(inplace=True), nn.Linear(hidden, outputs), *outer)


def normalized(rows: Tensor) -> Tensor:
    """Rows [n, d] of length 1, float32."""
    return functional.normalize(rows.float(), dim=1)


def _without_last_layer(network: nn.Module) -> int:
    """Cut the last linear layer off, in place; the number of features that went into it."""
    layers: Mapping[str, nn.Linear] = {n: m for n, m in network.named_modules() if isinstance(m, nn.Linear)}
    name, last = list(layers.items())[-1]
    network.set_submodule(name, nn.Identity())
    return last.in_features
