"""The spectra of images, their energies by band, and filters of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
from scipy import fft

from hpcule.data.source import Ids, Samples
from hpcule.publish.carry import Publish
from hpcule.victim.published import Published
from hpcule.world.coloured import frequency_counts

OCTAVES, SECTORS = 5, 6
"""Wavelengths of 2 to 4, 4 to 8, 8 to 16, 16 to 32, and more pixels, each in six directions."""

Values = npt.NDArray[np.float64]
Gains = Callable[[int, Values], Values]
"""A function from a sample's id and its power to factors of its amplitudes, both [H, W // 2 + 1]."""


def bands_of(shape: tuple[int, int, int]) -> npt.NDArray[np.int64]:
    """The band of each frequency of real images (C, H, W), int64 [H, W // 2 + 1]: 0..bands-1, and -1 for the mean."""
    _, height, width = shape
    down, across = np.meshgrid(np.fft.fftfreq(height), np.fft.rfftfreq(width), indexing="ij")
    # In these columns both a frequency and its conjugate are there, and have to be in the same band.
    down[:, frequency_counts(width) == 1] = np.abs(down[:, frequency_counts(width) == 1])
    frequency = np.maximum(np.hypot(down, across), np.finfo(np.float64).tiny)
    octave = np.clip(np.floor(np.log2(0.5 / frequency)), 0, OCTAVES - 1)
    sector = np.floor(np.arctan2(down, across) % np.pi / np.pi * SECTORS) % SECTORS
    cells = (octave * SECTORS + sector).astype(np.int64)
    cells[0, 0] = -1
    # Of small images some are empty.
    found: npt.NDArray[np.int64] = np.unique(cells, return_inverse=True)[1].reshape(cells.shape) - 1
    return found


def band_energies(power: Values, bands: npt.NDArray[np.int64]) -> Values:
    """What each band contributes to the mean square of an image [bands]."""
    found: Values = np.bincount(bands.reshape(-1) + 1, weights=power.reshape(-1)).astype(np.float64)[1:]
    return found


def powers(train: Published) -> Iterator[tuple[int, Values]]:
    """The label and the power of each sample: what each frequency, and its conjugate, contributes to the mean square
    [H, W // 2 + 1], in squares of levels."""
    for samples, labels in train.blocks():
        for sample, label in zip(samples.numpy(), labels.tolist(), strict=True):
            yield label, _power(_spectrum(sample), train.shape[2])


def filtered(gains: Gains, levels: int) -> Publish:
    """What a filter does to samples of 0..levels, clipped and rounded."""

    def change(ids: Ids, samples: Samples) -> Samples:
        result = np.empty_like(samples)
        # One by one: the last bits of a transform may depend on what is transformed with it.
        for row, number, sample in zip(result, ids.tolist(), samples, strict=True):
            spectrum = _spectrum(sample)
            spectrum *= gains(number, _power(spectrum, sample.shape[2]))
            row[...] = np.clip(np.rint(fft.irfft2(spectrum, sample.shape[1:])), 0, levels)
        return result

    return change


def _spectrum(sample: Samples) -> npt.NDArray[np.complex128]:
    found: npt.NDArray[np.complex128] = fft.rfft2(sample.astype(np.float64))
    return found


def _power(spectrum: npt.NDArray[np.complex128], width: int) -> Values:
    squares = (spectrum.real**2 + spectrum.imag**2).mean(0) * frequency_counts(width)
    found: Values = squares / (spectrum.shape[1] * width) ** 2
    return found
