"""The critical batch size: where more samples a step stop saving steps.

S(B) = S_min (1 + B_crit / B), the same curve as (S / S_min - 1)(E / E_min - 1) = 1 with E = B S samples in all.
McCandlish et al., "An empirical model of large-batch training", arXiv 1812.06162.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hpcule.measure.accuracy import CONFIDENCE
from hpcule.study.noise_scale import RESAMPLES, percentiles
from hpcule.world.keyed import key

Floats = npt.NDArray[np.float64]

FEWEST_SIZES = 3
"""Two batch sizes fit every such curve and so cannot speak against it."""

REACH = 10.0
"""The fit looks for B_crit up to this factor beyond the grid. There, steps at the nearest batch size are within 10 % of
perfect scaling, or of saturation: the data do not tell that from any farther value."""

MISFIT = 0.01
"""Level of the test that refuses data which the curve does not describe."""


@dataclass(frozen=True)
class CriticalBatch:
    """The curve fitted to steps-to-target; B_crit in samples.

    `minimum_steps` and `critical_batch` are None where they are not identifiable, and `reason` then says why.
    `interval` is what the data allow for B_crit at 95 % confidence; its lower bound is zero, or its upper one infinite,
    where they bound it from one side only, and it is None where they do not speak of it at all. `batches` are the batch
    sizes fitted. `censored` has the number of seeds that missed the target for every batch size left out for it.
    """

    minimum_steps: float | None
    critical_batch: float | None
    steps_interval: tuple[float, float] | None
    interval: tuple[float, float] | None
    identifiable: bool
    reason: str
    batches: tuple[int, ...]
    censored: Mapping[int, int]


def steps_to_target(batch: npt.ArrayLike, minimum_steps: float, critical_batch: float) -> Floats:
    """S(B) on the curve."""
    return minimum_steps * (1 + critical_batch / np.asarray(batch, dtype=np.float64))


def fit_critical_batch(
    steps: Mapping[int, Sequence[float | None]], seed: int = 0, resamples: int = RESAMPLES
) -> CriticalBatch:
    """Fit the curve to the steps that each seed took to the target, by batch size; None where it was not reached.

    A batch size that misses the target with any seed is left out: a mean over the seeds that reached it would be too
    small. The interval is a bootstrap over the seeds of each batch size.
    """
    censored = {batch: missed for batch, seeds in sorted(steps.items()) if (missed := list(seeds).count(None))}
    logs = {
        batch: np.log(np.array(seeds, dtype=np.float64))
        for batch, seeds in sorted(steps.items())
        if len(seeds) > 0 and batch not in censored
    }
    reason = _unusable(logs) or _misfit(logs)
    if reason:
        return CriticalBatch(None, None, None, None, False, reason, tuple(logs), censored)
    minimum, critical = _least_squares(*_means(logs))
    draws = np.array(_bootstrap(logs, seed, resamples))
    interval = _open_ended(percentiles(draws[:, 1]), min(logs), max(logs))
    reason = _one_sided(critical, interval, min(logs), max(logs))
    if reason:
        return CriticalBatch(None, None, None, interval, False, reason, tuple(logs), censored)
    return CriticalBatch(minimum, critical, percentiles(draws[:, 0]), interval, True, "", tuple(logs), censored)


def _unusable(logs: Mapping[int, Floats]) -> str:
    """Why there is nothing to fit; empty where there is."""
    if len(logs) < FEWEST_SIZES:
        return f"{len(logs)} batch sizes reached the target with all seeds; it takes {FEWEST_SIZES}"
    single = [batch for batch, values in logs.items() if len(values) < 2]
    if single:
        return f"one seed allows no interval: batch size {', '.join(map(str, single))}"
    if all(np.ptp(values) == 0 for values in logs.values()):
        return "all seeds took the same steps: test for the target more often"
    return ""


def _misfit(logs: Mapping[int, Floats]) -> str:
    """Whether batch sizes leave the curve by more than their seeds scatter: the F test for lack of fit."""
    # scipy takes half a second to import, and the rest of the package does not need it.
    from scipy.stats import f

    batches, means, counts = _means(logs)
    residuals = means - np.log(steps_to_target(batches, *_least_squares(batches, means, counts)))
    freedom = int(counts.sum()) - len(logs)
    within = sum(float(((values - values.mean()) ** 2).sum()) for values in logs.values()) / freedom
    ratio = float((counts * residuals**2).sum()) / (len(logs) - 2) / within
    if f.sf(ratio, len(logs) - 2, freedom) >= MISFIT:
        return ""
    worst = int(batches[np.argmax(counts * residuals**2)])
    return f"the curve does not describe these steps; batch size {worst} is farthest from it"


def _one_sided(critical: float, interval: tuple[float, float], smallest: int, largest: int) -> str:
    """Why the grid does not show B_crit from both sides; empty where it does."""
    low, high = interval
    if critical > largest:
        return f"all batch sizes are below B_crit, where steps fall nearly as 1/B: it is above {low:.4g}"
    if critical < smallest:
        return f"all batch sizes are above B_crit, where steps hardly fall: it is below {high:.4g}"
    if low > 0 and math.isfinite(high):
        return ""
    return f"the seeds scatter too much: B_crit may be anything from {low:.4g} to {high:.4g}"


def _means(logs: Mapping[int, Floats]) -> tuple[Floats, Floats, Floats]:
    """Batch sizes, mean log steps of each, and number of seeds of each."""
    sizes = np.array(list(logs), dtype=np.float64)
    means = np.array([values.mean() for values in logs.values()])
    return sizes, means, np.array([len(values) for values in logs.values()], dtype=np.float64)


def _least_squares(batches: Floats, means: Floats, counts: Floats) -> tuple[float, float]:
    """S_min and B_crit that minimise the weighted squares of log S; B_crit at most `REACH` times beyond the grid.

    The weight of a mean is its number of seeds: 1 / variance, with one variance of log S for all batch sizes. Separate
    variances from a handful of seeds would make the weights, and with them the fit, a matter of luck.
    """
    from scipy.optimize import minimize_scalar

    weights = counts / counts.sum()

    def residuals(log_critical: float) -> Floats:
        """Log steps less the curve's shape at this B_crit; their mean is the best log S_min."""
        return means - np.log1p(math.exp(log_critical) / batches)

    def squares(log_critical: float) -> float:
        left = residuals(log_critical)
        return float(weights @ (left - weights @ left) ** 2)

    bounds = (math.log(batches.min() / REACH), math.log(batches.max() * REACH))
    found = minimize_scalar(squares, bounds=bounds, method="bounded", options={"xatol": 1e-4})
    return math.exp(weights @ residuals(found.x)), math.exp(found.x)


def _bootstrap(logs: Mapping[int, Floats], seed: int, resamples: int) -> list[tuple[float, float]]:
    """S_min and B_crit of fits to seeds drawn again, within each batch size.

    Deviations from the mean of n seeds are stretched by sqrt(n / (n - 1)), without which resampled means would scatter
    too little (Davison and Hinkley, "Bootstrap methods and their application", 1997, section 2.3), and by Student's
    quantile over the normal one, because the scatter itself comes from few seeds.
    """
    from scipy.stats import norm, t

    rng = np.random.default_rng(key(seed, "critical batch"))
    batches, means, counts = _means(logs)
    tail = (1 + CONFIDENCE) / 2
    student = float(t.ppf(tail, counts.sum() - len(logs)) / norm.ppf(tail))
    spread = [
        student * math.sqrt(len(values) / (len(values) - 1)) * (values - values.mean()) for values in logs.values()
    ]
    return [
        _least_squares(batches, means + np.array([rng.choice(values, len(values)).mean() for values in spread]), counts)
        for _ in range(resamples)
    ]


def _open_ended(interval: tuple[float, float], smallest: int, largest: int) -> tuple[float, float]:
    """The interval, with zero or infinity for a bound at the end of what the fit covers."""
    low, high = interval
    low = 0.0 if low <= 1.01 * smallest / REACH else low
    return low, math.inf if high >= largest * REACH / 1.01 else high
