"""Features of images without a network: the energy of their brightness by wavelength and direction, and colour."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import fft

from hpcule.data.source import Samples
from hpcule.world.coloured import frequency_counts
from hpcule.world.spectra import Cells

ROUNDING = 1 / 12
"""Energy of the rounding to levels, below which bands do not differ."""


class BandEnergies:
    """Features of samples of one shape: an octave has two bands of three directions, from horizontal to vertical.

    Args:
        shape: (C, H, W) of the samples.
    """

    def __init__(self, shape: tuple[int, int, int]) -> None:
        _, height, width = shape
        cells = Cells.between(2, max(2, min(height, width) / 2), 4, 3)
        # The other half of the frequencies has the same energies.
        energies = cells.energies(height, width) * frequency_counts(width)
        self._weights = energies.reshape(cells.count, -1).astype(np.float64)

    def features(self, samples: Samples) -> npt.NDArray[np.float64]:
        """The logarithms of each band's mean energy and of each channel's mean, float64 [n, D].

        Args:
            samples: integers [n, C, H, W].
        """
        brightness = samples.mean(1, dtype=np.float64)
        power = np.square(np.abs(fft.rfft2(brightness, norm="ortho"))).reshape(len(samples), -1)
        bands = np.log(power @ self._weights.T + ROUNDING)
        return np.concatenate([bands, np.log1p(samples.mean((2, 3), dtype=np.float64))], axis=1)
