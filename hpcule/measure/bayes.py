"""How well anybody could tell classes apart who knew only how samples of them are spread: estimates of the Bayes error.

Two of them, since each alone misleads. The kernel's is the one that Bayes-error optimisation maximises (BEO, arXiv
2511.08191), but for its bandwidth: a small enough one finds no error anywhere, so here it is not fixed but the one
under which the labels are likeliest. The neighbours' is a bound: Cover and Hart, "Nearest neighbor pattern
classification", IEEE TIT 1967. Both hold for the features that they are given and say nothing of better ones.
"""

from __future__ import annotations

import math
from typing import TypedDict

import torch
from torch import Tensor
from torch.nn import functional

SCALES = [2.0 ** (power / 2) for power in range(-4, 9)]
"""Bandwidths that are tried, in units of the median distance to the nearest neighbour."""
UNLIKELY = 1e-6
"""Probability that a posterior has at least; a sample without neighbours of its class would rule a bandwidth out."""


class BayesError(TypedDict):
    """Shares in [0, 1]: the kernel's estimate, the nearest neighbour's error, and the bound that follows from it."""

    kernel: float
    neighbour: float
    at_least: float


def bayes_error(values: Tensor, labels: Tensor, classes: int) -> BayesError:
    """Estimate from samples, each of which is left out in its turn.

    Args:
        values: [n, d]; n of a few thousand, since all pairs are compared.
        labels: int64 [n].
        classes: how many there may be.
    """
    values = values.double() - values.double().mean(0)
    lengths = values.square().sum(1)
    squares = (lengths[:, None] + lengths - 2 * values @ values.t()).clamp_min_(0).float()
    squares.fill_diagonal_(math.inf)
    nearest, who = squares.min(1)
    wrong = float((labels[who] != labels).double().mean())
    one_hot = functional.one_hot(labels, classes).float()
    posteriors = [_posterior(squares, one_hot, max(float(nearest.median()), 1e-30) * scale**2) for scale in SCALES]
    likeliest = max(posteriors, key=lambda each: float(each[one_hot.bool()].clamp_min(UNLIKELY).log().mean()))
    return {
        "kernel": float((1 - likeliest.amax(1)).mean()),
        "neighbour": wrong,
        "at_least": cover_hart(wrong, classes),
    }


def cover_hart(wrong: float, classes: int) -> float:
    """The least Bayes error at which a nearest neighbour, of infinitely many, errs on a share `wrong`."""
    guess = (classes - 1) / classes
    return guess * (1 - math.sqrt(max(0.0, 1 - wrong / guess)))


def _posterior(squares: Tensor, one_hot: Tensor, variance: float) -> Tensor:
    """Share of each class [n, classes] among a sample's neighbours, weighted by a Gaussian kernel of the distance."""
    # Relative to the nearest one, so that no row of weights is all zeros.
    weights = torch.exp((squares.amin(1, keepdim=True) - squares) / (2 * variance))
    masses = weights @ one_hot
    return masses / masses.sum(1, keepdim=True)
