"""Stored grey levels of a medical image, and the 8-bit levels that a viewer shows of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

SHOWN = 255
"""The brightest level shown."""
WIDEST = 1 << 16
"""Stored values from one end of 16 bits to the other."""


@dataclass(frozen=True)
class Scale:
    """What stored values stand for: `slope` times the value, plus `intercept`.

    Attributes:
        slope: not 0.
        intercept: what a stored 0 stands for.
        unit: of what they stand for, such as "HU"; "" where nothing names it.
    """

    slope: float
    intercept: float
    unit: str = ""


HOUNSFIELD = "HU"
"""The unit of computed tomography: -1000 is air, and 0 water."""
_AS_STORED = Scale(1, 0)


@dataclass(frozen=True)
class Grid:
    """How stored values become the levels that are shown, and how far they may be moved.

    Attributes:
        lowest: the smallest stored value that is valid.
        table: uint8, the level shown of each valid stored value from `lowest` on.
        unit: stored values that one level shown is worth; negative where the larger value is the darker one.
        padding: first and last stored value that mean "no pixel here", or None.
        scale: what stored values stand for, or None where nothing says.
    """

    lowest: int
    table: npt.NDArray[np.uint8]
    unit: float
    padding: tuple[int, int] | None = None
    scale: Scale | None = None

    @property
    def highest(self) -> int:
        """The largest stored value that is valid."""
        return self.lowest + len(self.table) - 1

    def in_stored_levels(self) -> Grid:
        """The same grid for a budget that counts stored values."""
        return replace(self, unit=float(np.copysign(1, self.unit)))

    def bound(self, epsilon: float) -> int:
        """Largest change of a stored value under a budget of `epsilon` levels, in whole stored values: at most all
        of 16 bits, however wide the window is."""
        # 1e-9: 255 / 255 * 8 must not become 7 by the last bit of a division.
        return int(min(epsilon * abs(self.unit) + 1e-9, WIDEST))

    def shown(self, stored: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """What a viewer shows, uint8, of the same shape."""
        places = np.clip(stored, self.lowest, self.highest).astype(np.int64) - self.lowest
        levels: npt.NDArray[Any] = self.table[places]
        return levels

    def moved(self, stored: npt.NDArray[Any], levels: npt.NDArray[Any], epsilon: float) -> npt.NDArray[Any]:
        """Move each stored value by the given number of displayed levels, but by no more than the budget.

        What is padding or no valid value stays as it is, and nothing becomes padding.
        """
        bound = self.bound(epsilon)
        change = np.clip(np.rint(levels * self.unit), -bound, bound).astype(np.int64)
        total = np.clip(stored.astype(np.int64) + change, self.lowest, self.highest)
        fixed = (stored < self.lowest) | (stored > self.highest) | self.pads(stored) | self.pads(total)
        return np.where(fixed, stored, total).astype(stored.dtype)

    def meant(self, stored: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """What stored values stand for, or the stored values themselves where nothing says."""
        scale = self.scale or _AS_STORED
        valid: npt.NDArray[np.float64] = np.clip(stored, self.lowest, self.highest).astype(np.float64)
        return valid * scale.slope + scale.intercept

    def bright(self, stored: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """The same, so that the larger is the brighter one: of an image whose larger values are shown darker, stored
        values are mirrored between the smallest and the largest valid one first."""
        mirrored = self.unit * (self.scale or _AS_STORED).slope < 0
        return self.meant(self.lowest + self.highest - stored.astype(np.int64) if mirrored else stored)

    def pads(self, stored: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        """Where stored values are padding."""
        if self.padding is None:
            return np.zeros(stored.shape, np.bool_)
        first, last = self.padding
        return (stored >= first) & (stored <= last)


def linear(
    lowest: int,
    highest: int,
    window: tuple[float, float],
    *,
    padding: tuple[int, int] | None = None,
    scale: Scale | None = None,
) -> Grid:
    """A grid that shows stored values from one end of a window to the other as levels from black to white.

    Args:
        lowest: the smallest valid stored value.
        highest: the largest one.
        window: the stored values that are black and white; equal ones are one grey, and leave no budget.
        padding: see `Grid`.
        scale: see `Grid`.
    """
    black, white = window
    values = np.arange(lowest, highest + 1, dtype=np.float64)
    share = (values - black) / (white - black) if white != black else np.full(values.shape, 0.5)
    return Grid(lowest, as_levels(share), (white - black) / SHOWN, padding, scale)


def as_levels(share: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    """Levels of shares of white."""
    return np.rint(np.clip(share, 0, 1) * SHOWN).astype(np.uint8)
