"""What a perturbation reveals about the labels: how well a linear classifier predicts them, how far classes share it.

Yu et al., "Availability Attacks Create Shortcuts", KDD 2022, arXiv 2111.00898, found the deltas of many methods
linearly separable; AR (arXiv 2206.03693) works without being so.
"""

from __future__ import annotations

from typing import TypedDict

import torch
from torch import Tensor

from hpcule.measure.accuracy import Headline, recognised
from hpcule.nets.logistic import logistic_regression


class Separability(TypedDict):
    """The headline measure in [0, 1] of a linear classifier on the samples it was fitted to, and on others."""

    fitted: float
    held_out: float


def linear_separability(values: Tensor, labels: Tensor, classes: int) -> Separability:
    """Fit logistic regression to half of the samples, drawn at random, and test it on the others.

    Accuracy on fitted samples alone says little: as many random samples as they have values are separated perfectly.

    Args:
        values: [n, d]; scaled to [0, 1] all together.
        labels: int64 [n].
        classes: how many there may be.
    """
    scaled = centred(values)
    order = torch.randperm(len(values), generator=torch.Generator().manual_seed(0))
    fit, rest = order[::2], order[1::2]
    weights, bias = logistic_regression(scaled[fit], labels[fit], classes)
    answers, measure = (scaled @ weights + bias).argmax(1), Headline.of(labels.numpy()).measure
    fitted, held_out = (recognised(answers[half].numpy(), labels[half].numpy(), measure) for half in (fit, rest))
    return {"fitted": fitted, "held_out": held_out}


def centred(values: Tensor) -> Tensor:
    """Values [n, d] in a range of length 1 all together, with mean 0 each: the search for a classifier is short."""
    low, high = values.min(), values.max()
    scaled = (values.float() - low) / (high - low).clamp_min(1e-12)
    return scaled - scaled.mean(0)


def class_share(values: Tensor, labels: Tensor) -> float:
    """Share of the variance of values [n, d] that their classes' means explain: 1 where a class has one delta.

    Sample-wise noise should have little; a loader that takes the label for the index makes it 1.
    """
    values = values.double()
    total = (values - values.mean(0)).square().sum()
    if total == 0:
        return 0.0
    classes = [values[labels == label] for label in torch.unique(labels)]
    within = torch.stack([(own - own.mean(0)).square().sum() for own in classes]).sum()
    return float(1 - within / total)
