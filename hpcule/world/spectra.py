"""Spectra by class: where the energy of noise lies over wavelengths and directions.

A spectrum is made of cells: octave bands of wavelengths, which may be divided by direction. Directions that a flip maps
to each other belong to one sector, so that flipped samples keep their spectrum.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hpcule.world.coloured import frequency_counts
from hpcule.world.keyed import key, order

Single = npt.NDArray[np.float32]
WIDTH = 0.2
"""Half width of a band in octaves, at which the amplitude has fallen by a factor of exp(1/2)."""
SPREAD = 0.35
"""The same of a sector in radians, if there are at most three."""


@dataclass(frozen=True)
class Cells:
    """The cells that spectra are made of: each band with each sector.

    Attributes:
        wavelengths: centres of the bands, in pixels.
        sectors: number of sectors from horizontal to vertical; 1 divides nothing by direction.
    """

    wavelengths: tuple[float, ...]
    sectors: int

    @classmethod
    def between(cls, shortest: float, longest: float, a_period: int, sectors: int) -> Cells:
        """Cells whose bands divide each period of two octaves evenly."""
        count = 1 + math.floor(a_period / 2 * math.log2(longest / shortest) + 1e-9)
        return cls(tuple(shortest * 2 ** (2 * band / a_period) for band in range(count)), sectors)

    def energies(self, height: int, width: int) -> Single:
        """The energy of each cell over the frequencies of real images [cells, height, width // 2 + 1]; each sums to 1
        over all frequencies, of which these are half."""
        found: Single = np.stack([energy for _, energy in self._each(height, width, range(self.count))])
        return found

    def amplitude(self, spectrum: Single, height: int, width: int) -> Single:
        """The amplitude [height, width // 2 + 1] of one spectrum [cells], see `amplitudes`; of large images one cell
        after the other."""
        total = np.zeros((height, width // 2 + 1), np.float32)
        for cell, energy in self._each(height, width, np.flatnonzero(spectrum).tolist()):
            total += spectrum[cell] * energy
        return np.sqrt(total, out=total)

    @property
    def count(self) -> int:
        """Number of cells."""
        return len(self.wavelengths) * self.sectors

    def _each(self, height: int, width: int, cells: Iterable[int]) -> Iterator[tuple[int, Single]]:
        """Cells with their energies."""
        down, across = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
        frequency, angle = np.hypot(down, across), np.arctan2(np.abs(down), across)
        frequency[0, 0] = np.inf  # no change of brightness
        for cell in cells:
            band = np.exp(-((np.log2(frequency * self.wavelengths[cell // self.sectors]) / WIDTH) ** 2))
            energy = band * self._sector(angle, cell % self.sectors)
            # A single pixel has no frequency but that of its brightness.
            total = max(float((energy * frequency_counts(width)).sum()), np.finfo(np.float64).tiny)
            yield cell, (energy / total).astype(np.float32)

    def _sector(self, angle: npt.NDArray[np.float64], sector: int) -> npt.NDArray[np.float64]:
        if self.sectors == 1:
            return np.ones_like(angle)
        step = math.pi / 2 / (self.sectors - 1)
        return np.exp(-(((angle - sector * step) / min(SPREAD, SPREAD * step * 4 / math.pi)) ** 2))


def dealt(classes: int, cells: Cells, a_period: int, purpose: int) -> Single:
    """A table of spectra [classes, cells] in which each period of two octaves names the class.

    In each period, the classes are dealt to its cells in an order of their own, so that classes which share a
    cell in one period, where there are more classes than cells, differ in another.
    """
    table = np.zeros((classes, cells.count), np.float32)
    own = a_period * cells.sectors
    for period, first in enumerate(range(0, table.shape[1], own)):
        ranks = order(key(purpose, "period", period), np.arange(classes))
        dealt_to = first + np.arange(classes) % own
        inside = dealt_to < cells.count
        table[ranks[inside], dealt_to[inside]] = 1
    table /= np.maximum(table.sum(1, keepdims=True), 1)
    return table


def amplitudes(table: Single, energies: Single) -> Single:
    """The amplitudes [K, H, W // 2 + 1] with which white spectra become noise of unit variance.

    Args:
        table: energy of each class in each cell [K, cells], which sums to 1 by class.
        energies: of the cells, see `Cells.energies`.
    """
    found: Single = np.sqrt(np.tensordot(table, energies, 1))
    return found
