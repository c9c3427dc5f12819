"""How far a published recording is from the clean one: signal-to-noise ratio, log-spectral and Fréchet distance.

Everything is computed on what is published, rounded to 16 bit, and on a recording's own samples alone.
"""

from __future__ import annotations

from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hpcule.nets.spectrogram import FLOOR, LogMel

Array = npt.NDArray[np.float64]
FULL_SCALE = 1 << 15


class AudibilityNumbers(TypedDict):
    """What `Audibility.result` returns; ready for JSON.

    `snr_db` is the mean over the recordings that were changed and are not silent, None where there is none;
    `identical_share` the share of recordings that were not changed. `log_spectral_db` is the mean over all recordings;
    `frechet_log_mel` is of the whole collection. `linf_levels` is the largest change of any sample, in levels;
    `changed_share` the share of all samples that changed; `n` the recordings heard.
    """

    snr_db: float | None
    identical_share: float
    log_spectral_db: float
    frechet_log_mel: float
    linf_levels: int
    changed_share: float
    n: int


def snr(clean: Array, published: Array) -> float:
    """Power of a recording [t] over the power of its change, in dB; infinite where nothing changed, -inf of silence."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = 10 * np.log10(np.square(clean).sum() / np.square(published - clean).sum())
    return float("inf") if np.isnan(ratio) else float(ratio)


def log_spectral_distance(clean: Tensor, published: Tensor) -> float:
    """Root mean square over frequencies of the difference between two power spectra [bins, L] in dB, mean over frames.

    Gray, Markel, "Distance measures for speech processing", IEEE TASSP 1976; powers are raised by `FLOOR` first.
    """
    decibels = 10 * torch.log10((published.double() + FLOOR) / (clean.double() + FLOOR))
    return float(decibels.square().mean(0).sqrt().mean())


class Moments:
    """Mean and covariance of vectors that come in parts."""

    def __init__(self, size: int) -> None:
        self._count, self._sum, self._products = 0, np.zeros(size), np.zeros((size, size))

    def update(self, vectors: Array) -> None:
        """Add vectors [n, size]."""
        self._count += len(vectors)
        self._sum += vectors.sum(axis=0)
        self._products += vectors.T @ vectors

    @property
    def mean(self) -> Array:
        """Mean of the vectors added so far [size]."""
        return self._sum / self._count

    @property
    def covariance(self) -> Array:
        """[size, size], with the count as divisor."""
        covariance: Array = self._products / self._count - np.outer(self.mean, self.mean)
        return covariance


def frechet_distance(first: Moments, second: Moments) -> float:
    """Fréchet distance of two normal distributions, squared: as in the Fréchet audio distance, on other features.

    Dowson, Landau, "The Fréchet distance between multivariate normal distributions", J. Multivariate Analysis 1982.
    """
    values, vectors = np.linalg.eigh(first.covariance)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    mixed = np.sqrt(np.linalg.eigvalsh(root @ second.covariance @ root).clip(min=0)).sum()
    means = np.square(first.mean - second.mean).sum()
    # Rounding may leave two that are equal slightly below 0.
    return max(0.0, float(means + np.trace(first.covariance) + np.trace(second.covariance) - 2 * mixed))


class Audibility:
    """Audibility of a whole collection, recording by recording; memory does not grow with their number."""

    def __init__(self, rate: int) -> None:
        """Start with nothing heard; `rate` is in samples a second."""
        self._log_mel = LogMel(rate)
        self._moments = [Moments(self._log_mel.features) for _ in range(2)]
        self._n = self._identical = self._values = self._changed = self._linf = 0
        self._rated = 0
        self._snr = self._log_spectral = 0.0

    def update(self, clean: npt.NDArray[Any], published: npt.NDArray[Any], lengths: npt.NDArray[np.int64]) -> None:
        """Add recordings [n, 1, 1, T], uint16 with silence at 32768, all of the same length T."""
        assert clean.shape == published.shape, f"shapes differ: {clean.shape} and {published.shape}"
        for one, other, length in zip(clean, published, lengths, strict=True):
            self._add(one[0, 0, :length].astype(np.int64), other[0, 0, :length].astype(np.int64))

    def result(self) -> AudibilityNumbers:
        """Return the numbers over all recordings so far; at least one is needed."""
        assert self._n, "no recording was measured"
        return {
            "snr_db": self._snr / self._rated if self._rated else None,
            "identical_share": self._identical / self._n,
            "log_spectral_db": self._log_spectral / self._n,
            "frechet_log_mel": frechet_distance(*self._moments),
            "linf_levels": self._linf,
            "changed_share": self._changed / self._values,
            "n": self._n,
        }

    def _add(self, clean: npt.NDArray[np.int64], published: npt.NDArray[np.int64]) -> None:
        change = published - clean
        self._n += 1
        self._values += len(change)
        self._changed += int(np.count_nonzero(change))
        self._identical += not change.any()
        self._linf = max(self._linf, int(np.abs(change).max()))
        pair = [(signal - FULL_SCALE) / FULL_SCALE for signal in (clean, published)]
        if np.isfinite(ratio := snr(*pair)):
            self._rated += 1
            self._snr += ratio
        powers = [self._log_mel.spectrogram(torch.from_numpy(signal).float()[None])[0] for signal in pair]
        self._log_spectral += log_spectral_distance(*powers)
        for moments, power in zip(self._moments, powers, strict=True):
            moments.update(self._log_mel.of_power(power).double().numpy().T)
