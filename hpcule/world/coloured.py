"""Gaussian noise with a spectrum, which depends on (seed, purpose, sample id) alone."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy import fft

from hpcule.world.keyed import uniform_int16

Images = npt.NDArray[np.float32]
Spectra = npt.NDArray[np.complex64]


def frequency_counts(width: int) -> npt.NDArray[np.int64]:
    """How many frequencies of real images each column of half their spectrum stands for [width // 2 + 1]."""
    counts = np.full(width // 2 + 1, 2)
    counts[0] = 1
    if width % 2 == 0:
        counts[-1] = 1
    return counts


def white_spectra(purpose: int, ids: npt.NDArray[np.int64], shape: tuple[int, int, int]) -> Spectra:
    """Half of the spectra of white noise for each id, complex [n, C, H, W // 2 + 1].

    Multiply them with amplitudes, and `to_images` makes noise whose variance is the sum of their squares over all
    frequencies.

    Args:
        purpose: key of the noise.
        ids: of the samples.
        shape: (C, H, W) of the images.
    """
    channels, height, width = shape
    count = channels * height * (width // 2 + 1)
    # Sums of many uniform values are Gaussian. The two parts of a frequency have the variance 1 / 2 each.
    drawn = uniform_int16(purpose, ids, 2 * count).astype(np.float32)
    drawn *= np.float32(math.sqrt(6) / 2**16)
    spectra: Spectra = drawn.view(np.complex64).reshape(len(ids), channels, height, width // 2 + 1)
    # Of what stands for itself in a real image's spectrum, and not for a pair, a real image has only one real part.
    for column in np.flatnonzero(frequency_counts(width) == 1).tolist():
        spectra[..., column] *= np.float32(math.sqrt(2))
    return spectra


def to_images(spectra: Spectra, width: int) -> Images:
    """The real images [n, C, H, width] of half spectra [n, C, H, width // 2 + 1]."""
    height = spectra.shape[2]
    found = np.empty((*spectra.shape[:3], width), np.float32)
    # One by one: the last bits of a transform may depend on what is transformed with it.
    for row, own in zip(found.reshape(-1, height, width), spectra.reshape(-1, *spectra.shape[2:]), strict=True):
        row[...] = fft.irfft2(own, (height, width), norm="forward")
    return found
