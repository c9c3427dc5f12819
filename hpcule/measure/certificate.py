"""Certified (q, eta)-learnability: a bound on a quantile of accuracy around a network's weights, moved or not.

Wang, Xue, Li, Camtepe, Zhu: "Provably Unlearnable Data Examples", NDSS 2025, arXiv 2405.03316. With Gaussian noise of
deviation sigma on all weights of a network, the q-quantile of its accuracy, and of that of every network whose weights
are moved by at most eta, is at most the quantile at Phi(Phi^-1(q) + eta / sigma) of the unmoved one; an order statistic
of n draws bounds that from above.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

_NORMAL = NormalDist()


@dataclass(frozen=True)
class Bound:
    """What the draws certify for one length of the move.

    Attributes:
        eta: largest L2 length of the move of all weights together.
        quantile: of the unmoved network's accuracy that is bounded.
        rank: of the order statistic, counted from 1; None where the draws are too few, and nothing is certified.
        accuracy: the bound in [0, 1], or None.
    """

    eta: float
    quantile: float
    rank: int | None
    accuracy: float | None


def certified_bounds(
    accuracies: Sequence[float], quantile: float, deviation: float, etas: Sequence[float], alpha: float
) -> list[Bound]:
    """Bound the quantile of accuracy for every length of the move; all bounds hold together with 1 - alpha.

    Args:
        accuracies: in [0, 1], one a draw of the noise, in any order.
        quantile: q, in (0, 1).
        deviation: of the noise, sigma.
        etas: lengths of the move; each gets an equal share of alpha.
        alpha: how likely any of the bounds is allowed to be wrong.
    """
    ordered = sorted(accuracies)
    bounds = []
    for eta in etas:
        shifted = shifted_quantile(quantile, eta / deviation)
        rank = upper_rank(len(ordered), shifted, alpha / len(etas))
        bounds.append(Bound(eta, shifted, rank, None if rank is None else ordered[rank - 1]))
    return bounds


def shifted_quantile(quantile: float, shift: float) -> float:
    """Phi(Phi^-1(q) + shift): least mass of a set of mass q after a shift by this number of deviations."""
    return _NORMAL.cdf(_NORMAL.inv_cdf(quantile) + shift)


def upper_rank(draws: int, quantile: float, alpha: float) -> int | None:
    """The least rank, from 1, at which the order statistic of `draws` draws is at least the quantile with 1 - alpha.

    The k-th smallest is below the quantile only if k or more draws are, whose number is binomial. None: even the
    largest draw may be below it.
    """
    from scipy.stats import binom

    if quantile >= 1:
        return None
    # isf is the least k with P(draws below > k) <= alpha, and one more makes it P(... >= rank) <= alpha.
    rank = max(math.ceil(draws * quantile), int(binom.isf(alpha, draws, quantile)) + 1)
    return rank if rank <= draws else None


def largest_shift(draws: int, quantile: float, alpha: float) -> float:
    """The largest shift, in deviations, that this number of draws can certify; below 0 if they certify none."""
    return _NORMAL.inv_cdf(alpha ** (1 / draws)) - _NORMAL.inv_cdf(quantile)


def fewest_draws(quantile: float, shift: float, alpha: float) -> int:
    """The number of draws that certifying a shift, in deviations, needs."""
    return math.ceil(math.log(alpha) / math.log(shifted_quantile(quantile, shift)))
