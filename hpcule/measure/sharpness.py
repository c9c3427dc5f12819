"""Sharpness-aware learnability of layers, and the Unlearnable Distance between two trainings.

Ye, Su, Qian: "How Far Are We from True Unlearnability?", arXiv 2509.08058. A layer is sharp where moving its
weights by a small share of their length changes the loss a good deal. On clean samples many layers are, on unlearnable
ones few: the distance is the ratio of their numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Search:
    """How far and how long the loss is pushed.

    Attributes:
        radius: longest move of a layer's weights, as a share of their Euclidean length.
        iterations: passes over the samples, up and down each.
        learning_rate: of plain gradient steps.
        batch: samples a step.
    """

    radius: float = 0.05
    iterations: int = 10
    learning_rate: float = 0.1
    batch: int = 64


def layers(network: nn.Module) -> list[str]:
    """Names of the layers that count: the weights of all convolutions and linear maps, in order."""
    kinds = (nn.Conv1d, nn.Conv2d, nn.Linear)
    return [f"{name}.weight" for name, module in network.named_modules() if isinstance(module, kinds)]


def sharpness(network: nn.Module, layer: str, images: Tensor, labels: Tensor, search: Search) -> float:
    """The largest change of the mean loss that was found, up or down; 0 where none was.

    Args:
        network: its weights are the same afterwards; it is put into evaluation mode, so statistics stay.
        layer: name of the weights that move; all others stay.
        images: [n, C, H, W] in [0, 1], on the network's device.
        labels: int64 [n].
        search: how to look.
    """
    network.eval().requires_grad_(False)
    weights = network.get_parameter(layer)
    start = weights.detach().clone()
    weights.requires_grad_(True)
    first = _mean_loss(network, images, labels, search)
    changes = [0.0]
    for direction in (1, -1):
        for _ in range(search.iterations):
            for part in range(0, len(images), search.batch):
                rows = slice(part, part + search.batch)
                loss = functional.cross_entropy(network(images[rows]), labels[rows])
                (gradient,) = torch.autograd.grad(loss, weights)
                with torch.no_grad():
                    weights.add_(gradient, alpha=direction * search.learning_rate)
            _project(weights, start, search.radius)
            changes.append(direction * (_mean_loss(network, images, labels, search) - first))
        with torch.no_grad():
            weights.copy_(start)
    weights.requires_grad_(False)
    return max(changes)


def two_means(values: Sequence[float]) -> tuple[float, float]:
    """The centres of the two clusters of numbers with the least squared distances: exact, by trying every cut."""
    ordered = np.sort(np.asarray(values, np.float64))
    assert len(ordered) > 1, "two clusters need two values"
    cuts = range(1, len(ordered))
    costs = [ordered[:cut].var() * cut + ordered[cut:].var() * (len(ordered) - cut) for cut in cuts]
    cut = cuts[int(np.argmin(costs))]
    return float(ordered[:cut].mean()), float(ordered[cut:].mean())


def threshold(clean: Values) -> float:
    """From where on a layer counts as learnable: halfway between the two clusters of a clean training's layers.

    Args:
        clean: [probes, layers]; each probe has its own clusters, and the result is their mean.
    """
    return float(np.mean([sum(two_means(row.tolist())) / 2 for row in clean]))


def learnable(values: Values, limit: float, weights: Values) -> float:
    """Weight of the layers above the limit, meaned over the probes: values [probes, layers], weights [layers]."""
    return float(((values > limit) * weights).sum(1).mean())


def unlearnable_distance(clean: Values, other: Values, weights: Values) -> float:
    """1: as learnable as clean samples; toward 0: unlearnable; above 1: like adversarial samples.

    Args:
        clean: sharpness [probes, layers] of the training on clean samples.
        other: of the other training, measured in the same way.
        weights: [layers]: 1 each, or how many parameters a layer has.

    Returns:
        The ratio; there is always a clean layer above the threshold.
    """
    limit = threshold(clean)
    return learnable(other, limit, weights) / learnable(clean, limit, weights)


def _mean_loss(network: nn.Module, images: Tensor, labels: Tensor, search: Search) -> float:
    with torch.no_grad():
        parts = zip(images.split(search.batch), labels.split(search.batch), strict=True)  # type: ignore[no-untyped-call]
        losses = [functional.cross_entropy(network(part), names, reduction="sum") for part, names in parts]
    return float(torch.stack(losses).sum() / len(images))


def _project(weights: Tensor, start: Tensor, radius: float) -> None:
    """Back into the ball, if they have left it."""
    with torch.no_grad():
        moved = weights - start
        share = radius * start.norm() / moved.norm().clamp_min(1e-30)
        if share < 1:
            weights.copy_(start + moved * share)
