"""What class texture is drawn from, at any size of a sample: number, wavelengths and strength of its spectra."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from hpcule.world.spectra import Cells, Single, dealt

MOST_CELLS = 12
"""Number of cells of a period that spectra are dealt to, at most."""

MOST_SPECTRA = 1 << 20
MOST_SECTORS = 6


@dataclass(frozen=True, kw_only=True)
class TextureRecipe:
    """All of a texture but its seed and its budget.

    Attributes:
        spectra: number of spectra, one a class or a cluster.
        sectors: number of directions that divide each band of wavelengths.
        shortest: wavelength in pixels; None: 12, or an eighth of the shorter side where that is less.
        longest: wavelength in pixels; None: see `span`.
        saturation: standard deviations of the noise, in budgets, before tanh bounds it.
        colour: whether each channel has noise of its own.
        flat: share of the budget where an image is flat.
    """

    spectra: int
    sectors: int
    shortest: float | None
    longest: float | None
    saturation: float
    colour: bool
    flat: float

    def __post_init__(self) -> None:
        """Raise ValueError where a number is impossible."""
        lengths = [length for length in (self.shortest, self.longest) if length is not None]
        possible = 1 <= self.spectra <= MOST_SPECTRA and 1 <= self.sectors <= MOST_SECTORS
        if not (possible and all(2 <= length < math.inf for length in lengths)):
            raise ValueError(f"no texture has {self.spectra} spectra, {self.sectors} sectors, wavelengths {lengths}")
        if not (0 < self.saturation < math.inf and 0 <= self.flat <= 1):
            raise ValueError(f"no texture has saturation {self.saturation} and flat {self.flat}")

    @property
    def a_period(self) -> int:
        """Number of bands of a period of two octaves."""
        return max(1, math.ceil(min(self.spectra, MOST_CELLS) / self.sectors))

    def span(self, side: int, crafted: int) -> tuple[float, float]:
        """The shortest and the longest wavelength of samples with this shorter side in pixels.

        By default they are two octaves apart, and more in images that are larger than those that were crafted: a victim
        that makes a large image smaller sees long waves alone.

        Args:
            side: of the samples.
            crafted: the shorter side of those that were crafted.
        """
        shortest, whole = (self.shortest or max(2.0, min(12.0, one / 8)) for one in (side, crafted))
        longest = self.longest or 4 * max(shortest, whole * side / crafted)
        return shortest, max(shortest, longest)

    def cells(self, side: int, crafted: int) -> Cells:
        """The cells of such samples, in whole periods, each of which has one for every spectrum; arguments as for
        `span`."""
        shortest, longest = self.span(side, crafted)
        least = shortest * 2 ** (2 * (self.a_period - 1) / self.a_period)
        cells = Cells.between(shortest, max(longest, least), self.a_period, self.sectors)
        whole = len(cells.wavelengths) // self.a_period * self.a_period
        return Cells(cells.wavelengths[:whole], cells.sectors)

    def table(self, cells: Cells, purpose: int) -> Single:
        """The fixed spectra [spectra, cells] of a key; those of more bands go on where those of fewer end."""
        return _dealt(self.spectra, cells, self.a_period, purpose)


@lru_cache(maxsize=8)
def _dealt(spectra: int, cells: Cells, a_period: int, purpose: int) -> Single:
    table = dealt(spectra, cells, a_period, purpose)
    table.flags.writeable = False
    return table
