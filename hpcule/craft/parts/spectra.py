"""Spectra by class, and noise that has them: where its energy lies over wavelengths and directions.

A spectrum is made of cells: octave bands of wavelengths, which may be divided by direction. Directions that a flip maps
to each other belong to one sector, so that flipped samples keep their spectrum.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import fft

from hpcule.data.source import Ids
from hpcule.world.keyed import key, order, uniform

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
        down, across = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
        frequency, angle = np.hypot(down, across), np.arctan2(np.abs(down), across)
        frequency[0, 0] = np.inf  # no change of brightness
        found = []
        for wavelength in self.wavelengths:
            band = np.exp(-((np.log2(frequency * wavelength) / WIDTH) ** 2))
            found += [band * self._sector(angle, sector) for sector in range(self.sectors)]
        energies = np.stack(found)
        return (energies / (energies * halves(width)).sum((1, 2), keepdims=True)).astype(np.float32)

    def _sector(self, angle: npt.NDArray[np.float64], sector: int) -> npt.NDArray[np.float64]:
        if self.sectors == 1:
            return np.ones_like(angle)
        step = math.pi / 2 / (self.sectors - 1)
        return np.exp(-(((angle - sector * step) / min(SPREAD, SPREAD * step * 4 / math.pi)) ** 2))


def halves(width: int) -> npt.NDArray[np.int64]:
    """How many frequencies of an image each column of half its spectrum stands for [width // 2 + 1]."""
    counts = np.full(width // 2 + 1, 2)
    counts[0] = 1
    if width % 2 == 0:
        counts[-1] = 1
    return counts


def dealt(classes: int, cells: Cells, a_period: int, purpose: int) -> Single:
    """A table of spectra [classes, cells] in which each period of two octaves names the class.

    In each period, the classes are dealt to its cells in an order of their own, so that what one period leaves to be
    confused, with more classes than cells, another tells apart.
    """
    table = np.zeros((classes, len(cells.wavelengths) * cells.sectors), np.float32)
    own = a_period * cells.sectors
    for period, first in enumerate(range(0, table.shape[1], own)):
        ranks = order(key(purpose, "period", period), np.arange(classes))
        for rank, label in enumerate(ranks):
            cell = first + rank % own
            if cell < table.shape[1]:
                table[label, cell] = 1
    return table / np.maximum(table.sum(1, keepdims=True), 1)


def amplitudes(table: Single, energies: Single) -> Single:
    """The amplitudes [K, H, W // 2 + 1] with which `coloured` makes noise of unit variance.

    Args:
        table: energy of each class in each cell [K, cells], which sums to 1 by class.
        energies: of the cells, see `Cells.energies`.
    """
    found: Single = np.sqrt(np.tensordot(table, energies, 1))
    return found


def coloured(purpose: int, ids: Ids, amplitude: Single, width: int) -> Single:
    """Gaussian noise [n, H, width], drawn for each id, of about unit variance.

    Args:
        purpose: key of the noise.
        ids: of the samples.
        amplitude: of each sample [n, H, width // 2 + 1].
        width: of the images.
    """
    height, columns = amplitude.shape[1:]
    # Sums of many uniform values are Gaussian. The two parts of a frequency have the variance 1 / 2 each.
    drawn = (uniform(purpose, ids, 2 * height * columns) - np.float32(0.5)) * np.float32(math.sqrt(6))
    spectrum = drawn.view(np.complex64).reshape(amplitude.shape) * amplitude
    # What stands for itself in a real image's spectrum, and not for a pair, has only one real part of two left.
    spectrum[:, :, halves(width) == 1] *= np.float32(math.sqrt(2))
    found = np.empty((len(ids), height, width), np.float32)
    for row, own in zip(found, spectrum, strict=True):  # one by one: the bits depend on what stands next to an image
        row[...] = fft.irfft2(own, (height, width))
    return found * np.float32(height * width)
