"""Two conditions compared seed by seed, with what the number of seeds could and could not have shown."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import stdev

import numpy as np
import numpy.typing as npt

from hpcule.measure.accuracy import CONFIDENCE, paired_difference
from hpcule.world.keyed import key

MOST_EXACT = 12
"""Pairs up to which all 2^n signs are tried."""

DRAWS = 20_000
POWER = 0.8
SAME_SUM = 1e-9
"""Relative difference up to which two sums of the same numbers with other signs count as equal."""


@dataclass(frozen=True)
class PairedDifference:
    """Differences a - b over `n` seeds.

    `interval` is Student's at 95 % confidence. `p_value` is that of the sign-flip test, which cannot fall below
    `smallest_p`, so that fewer than six pairs never reach 0.05. `detectable` is the smallest true difference for which
    the t test at 5 % would have had 80 % power, were the differences' standard deviation the one seen. A single seed
    has neither interval nor detectable difference, and a p-value of 1.
    """

    mean: float
    interval: tuple[float, float] | None
    n: int
    p_value: float
    smallest_p: float
    detectable: float | None

    @property
    def side(self) -> int:
        """1 or -1 where the whole interval is above or below 0; 0 where it is not, or there is none."""
        if self.interval is None:
            return 0
        return int(self.interval[0] > 0) - int(self.interval[1] < 0)


def compare_paired(a: Sequence[float], b: Sequence[float], seed: int = 0) -> PairedDifference:
    """Compare two conditions, where a[i] and b[i] belong to the same seed; `seed` keys the Monte Carlo test.

    Raises:
        ValueError: the lengths differ.
    """
    summary = paired_difference(a, b)
    differences = [first - second for first, second in zip(a, b, strict=True)]
    smallest = 2.0 ** (1 - summary.n) if summary.n <= MOST_EXACT else 1 / (DRAWS + 1)
    p_value = sign_flip(differences, seed)
    return PairedDifference(summary.mean, summary.interval, summary.n, p_value, smallest, detectable(differences))


def sign_flip(differences: Sequence[float], seed: int = 0) -> float:
    """Two-sided p-value of the mean when each difference is as likely to have the other sign (Fisher 1935).

    Exact for up to 12 pairs. Beyond, the share of 20,000 random sign vectors, the observed one counted among them so
    that it is never zero (Phipson and Smyth, "Permutation p-values should never be zero", 2010).
    """
    values = np.asarray(differences, dtype=np.float64)
    assert values.size > 0, "no pairs"
    # Equal sums may differ in their last bits; those are ties and count.
    limit = abs(float(values.sum())) - SAME_SUM * float(np.abs(values).sum())
    if len(values) <= MOST_EXACT:
        signs = np.array(list(itertools.product((-1.0, 1.0), repeat=len(values))))
        return float(np.mean(_as_extreme(signs, values, limit)))
    rng = np.random.default_rng(key(seed, "sign flip"))
    signs = rng.choice((-1.0, 1.0), size=(DRAWS, len(values)))
    return (1 + int(_as_extreme(signs, values, limit).sum())) / (1 + DRAWS)


def detectable(differences: Sequence[float], confidence: float = CONFIDENCE, power: float = POWER) -> float | None:
    """Smallest true mean difference that a two-sided t test would find with this power; None for a single pair.

    From the noncentral t distribution, with the standard deviation of the differences as seen. With few seeds that
    deviation is itself uncertain, and so is this figure: the interval is the stronger statement.
    """
    count = len(differences)
    if count == 1:
        return None
    from scipy.optimize import brentq
    from scipy.stats import nct, t

    critical = float(t.ppf((1 + confidence) / 2, count - 1))

    def excess(shift: float) -> float:
        """Power at a mean of `shift` standard errors, less the power wanted; the far tail is left out."""
        return float(nct.sf(critical, count - 1, shift)) - power

    # At the upper end the power is above 0.99 even with two pairs, whose critical value is 12.7.
    shift = float(brentq(excess, 0.0, 3 * critical + 10))
    return shift * stdev(differences) / math.sqrt(count)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for having made all these comparisons, in the given order.

    Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 1979.
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda place: p_values[place])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted


def _as_extreme(signs: npt.NDArray[np.float64], values: npt.NDArray[np.float64], limit: float) -> npt.NDArray[np.bool_]:
    """Which sign vectors [count, n] give a sum at least as far from zero as the observed one."""
    extreme: npt.NDArray[np.bool_] = np.abs(signs @ values) >= limit
    return extreme
