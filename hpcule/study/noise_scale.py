"""The gradient noise scale: at how many samples a batch's gradient is as much signal as noise.

McCandlish et al., "An empirical model of large-batch training", arXiv 1812.06162, appendix A.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from hpcule.measure.accuracy import CONFIDENCE
from hpcule.world.gradient_norms import GradientNorms
from hpcule.world.keyed import key

Floats = npt.NDArray[np.float64]

RESAMPLES = 1000
FEWEST_STEPS = 16
"""Fewest steps for an interval; in simulations 95 % intervals covered 91 % with 16 steps, and 82 % with 5."""

FEWEST_BLOCKS = 32
"""Blocks are not joined below this number, whatever the length that the number of steps asks for."""


@dataclass(frozen=True)
class NoiseScale:
    """B_simple = tr(Sigma) / |G|^2 in samples, averaged over steps.

    `noise_trace` and `gradient_squared` are unbiased estimates and as such may be negative; None without any step.
    `noise_scale` is their ratio, None where it is not identifiable, and `reason` then says why. `interval` is what the
    data allow at 95 % confidence: its upper bound is infinite where they do not tell |G|^2 from zero, and the lower one
    is then a one-sided bound. It is None with too few steps. `skipped` counts the steps that could not be used.
    """

    noise_trace: float | None
    gradient_squared: float | None
    noise_scale: float | None
    interval: tuple[float, float] | None
    identifiable: bool
    reason: str
    steps: int
    skipped: int


@dataclass
class NoiseSums:
    """Sums over steps of the estimates of tr(Sigma) and |G|^2, in blocks of consecutive steps for the bootstrap.

    A block grows with the number of steps n so that there are at most n^(2/3) of them: the length of n^(1/3) steps at
    which a block bootstrap is consistent (Künsch, Annals of Statistics 1989), and little to store.
    """

    skipped: int = 0
    length: int = 1
    blocks: list[tuple[int, float, float]] = field(default_factory=list)
    """Steps, sum of tr(Sigma), sum of |G|^2, by block; all but the last have `length` steps."""

    def add(self, step: GradientNorms) -> None:
        """Take in one step.

        A step with a single group, or with a number that is not finite, shows nothing: it is counted in `skipped`.

        Raises:
            ValueError: the norm of the whole is not that of a mean, as in a journal that somebody changed.
        """
        if step.groups < 2 or not math.isfinite(step.weighted_squares + step.squared_norm):
            self.skipped += 1
            return
        # The mean of squares is never below the square of the mean: a sum in place of a mean shows here.
        if step.samples * step.squared_norm > 1.001 * step.weighted_squares:
            raise ValueError(f"|g|^2 = {step.squared_norm:g} is not that of the groups' mean")
        trace = (step.weighted_squares - step.samples * step.squared_norm) / (step.groups - 1)
        self._append(trace, step.squared_norm - trace / step.samples)

    def estimate(self, seed: int = 0, resamples: int = RESAMPLES) -> NoiseScale:
        """The noise scale over all steps so far; the interval by a bootstrap over blocks of steps."""
        if not self.blocks:
            return NoiseScale(None, None, None, None, False, "no step had two groups", 0, self.skipped)
        steps, trace, squared = _totals(self.blocks)
        interval = None
        if steps < FEWEST_STEPS:
            reason = f"{steps} steps are too few for an interval; it takes {FEWEST_STEPS}"
        else:
            interval = percentiles(self._ratios(seed, resamples))
            known = squared > 0 and math.isfinite(interval[1])
            reason = (
                "" if known else "the gradient cannot be distinguished from zero; measure more steps or larger batches"
            )
        scale = None if reason else trace / squared
        return NoiseScale(trace / steps, squared / steps, scale, interval, not reason, reason, steps, self.skipped)

    def _append(self, trace: float, squared: float) -> None:
        """Add a step to the last block; join blocks in pairs when there are too many."""
        if not self.blocks or self.blocks[-1][0] == self.length:
            self.blocks.append((0, 0.0, 0.0))
        self.blocks[-1] = _totals([self.blocks[-1], (1, trace, squared)])
        steps = (len(self.blocks) - 1) * self.length + self.blocks[-1][0]
        if len(self.blocks) > max(FEWEST_BLOCKS, steps ** (2 / 3)):
            self.blocks = [_totals(self.blocks[start : start + 2]) for start in range(0, len(self.blocks), 2)]
            self.length *= 2

    def _ratios(self, seed: int, resamples: int) -> Floats:
        """Noise scales [resamples] of resampled blocks; infinite where |G|^2 is not positive."""
        rng = np.random.default_rng(key(seed, "noise scale"))
        blocks = np.array(self.blocks)[:, 1:]
        sums = np.array([blocks[rng.integers(len(blocks), size=len(blocks))].sum(axis=0) for _ in range(resamples)])
        ratios = np.full(resamples, np.inf)
        np.divide(sums[:, 0], sums[:, 1], out=ratios, where=sums[:, 1] > 0)
        return ratios


def percentiles(draws: Floats, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Bounds of the middle share `confidence` of bootstrap draws; draws may be infinite."""
    ordered = np.sort(draws)
    # The k-th smallest of n draws is their k / (n + 1) quantile.
    tail = max(1, round((len(ordered) + 1) * (1 - confidence) / 2)) - 1
    return float(ordered[tail]), float(ordered[-1 - tail])


def _totals(blocks: Sequence[tuple[int, float, float]]) -> tuple[int, float, float]:
    """Steps and sums of several blocks together."""
    return sum(block[0] for block in blocks), sum(block[1] for block in blocks), sum(block[2] for block in blocks)
