"""How linear a network is: what a linear classifier of pixels explains of it, and how easily its gradient flips it.

Perturbations that are learnt instead of images leave networks close to linear ones (PIL, arXiv 2601.19967, whose
authors measure it by one-step attacks; Goodfellow et al., arXiv 1412.6572).
"""

from __future__ import annotations

from typing import TypedDict

import torch
from torch import Tensor, nn
from torch.nn import functional

from hpcule.measure.structure import linear_separability

RADII = (1, 2, 4, 8)
"""Levels of 255 that a one-step attack moves every value by."""


class Linearity(TypedDict):
    """Shares in [0, 1].

    Attributes:
        explained: answers of the network that a linear classifier of pixels gives too, on samples it was not fitted to.
        commonest: answers that are the most frequent one, which a constant would give too.
        flipped: radius -> of the samples that were recognised, those that are not after one step of that radius.
    """

    explained: float
    commonest: float
    flipped: dict[str, float]


def linearity(network: nn.Module, images: Tensor, labels: Tensor, classes: int) -> Linearity:
    """Measure a network in evaluation mode on clean test samples.

    Args:
        network: on the images' device.
        images: float32 [n, C, H, W] in [0, 1]; a linear classifier is fitted to half of them.
        labels: int64 [n].
        classes: how many there may be.
    """
    leaf = images.detach().requires_grad_()
    logits = network(leaf).float()
    (gradient,) = torch.autograd.grad(functional.cross_entropy(logits, labels, reduction="sum"), leaf)
    answers = logits.detach().argmax(1)
    right = answers == labels
    flipped = {}
    with torch.no_grad():
        for radius in RADII:
            moved = (images + radius / 255 * gradient.sign()).clamp_(0, 1)
            still = network(moved).argmax(1) == labels
            flipped[str(radius)] = float((right & ~still).sum() / right.sum().clamp_min(1))
    return {
        "explained": linear_separability(images.detach().flatten(1).cpu(), answers.cpu(), classes)["held_out"],
        "commonest": float(torch.bincount(answers).max() / len(answers)),
        "flipped": flipped,
    }
