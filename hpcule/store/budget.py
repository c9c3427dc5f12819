"""How large a perturbation is, in levels of the sample's grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Norm = Literal["linf", "l2", "l0"]
SYMBOLS = {"linf": "L-infinity", "l2": "L2", "l0": "L0"}


@dataclass(frozen=True)
class Budget:
    """How far a sample may be changed.

    Attributes:
        norm: largest change of a value, Euclidean length of the change, or number of changed pixels.
        epsilon: in levels of the sample's grid, or in pixels. The largest level with "linf" binds nothing.
        free_pixels: number of a sample's pixels, those that are changed most, that are not counted; only with "linf".
    """

    norm: Norm
    epsilon: float
    free_pixels: int = 0

    @property
    def by_value(self) -> bool:
        """Whether every value has the same bound, which can be kept at any size of an image and in any unit."""
        return self.norm == "linf" and not self.free_pixels

    def exceeded(self, size: float) -> str:
        """Say that a sample's perturbation takes `size` of the budget."""
        unit = "pixels" if self.norm == "l0" else "levels"
        free = f" apart from {self.free_pixels} free pixel(s)" if self.free_pixels else ""
        return f"changed by {size:g} {unit} ({SYMBOLS[self.norm]}), {self.epsilon:g} are allowed{free}"

    def dtype(self, levels: int) -> np.dtype[Any]:
        """The smallest of int8, int16 and int32 that holds -m..m with room for a fill value below.

        m is epsilon for L-infinity, and the grid's levels where one element may carry the whole budget or is free.
        """
        largest = self.epsilon if self.by_value else levels
        return next(np.dtype(t) for t in (np.int8, np.int16, np.int32) if largest <= np.iinfo(t).max)

    def rounded(self, delta: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Fractions of levels as whole ones: the nearest, but towards zero where lengths of whole samples count."""
        return np.trunc(delta) if self.norm == "l2" else np.rint(delta)

    def spent(self, delta: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """What of the budget each perturbation [n, C, H, W] takes [n], in the units of epsilon."""
        if not self.free_pixels:
            return magnitude(delta, self.norm)
        assert self.norm == "linf", self.norm
        # Each pixel by itself: [n, H * W].
        pixels = magnitude(np.moveaxis(delta, 1, -1).reshape(-1, delta.shape[1], 1, 1), "linf").reshape(len(delta), -1)
        place = pixels.shape[1] - 1 - self.free_pixels
        assert place >= 0, f"{self.free_pixels} of {pixels.shape[1]} pixels are free"
        rest: npt.NDArray[np.float64] = np.partition(pixels, place, axis=1)[:, place]
        return rest

    def excess(self, delta: npt.NDArray[Any]) -> tuple[int, float] | None:
        """Return (position, what it takes) of the first perturbation beyond the budget, or None."""
        sizes = self.spent(delta)
        over = np.flatnonzero(sizes > self.epsilon)
        return (int(over[0]), float(sizes[over[0]])) if over.size else None


def magnitude(delta: npt.NDArray[Any], norm: str) -> npt.NDArray[np.float64]:
    """Return the norm of each perturbation.

    Args:
        delta: integers [n, C, H, W], in levels.
        norm: "linf", "l2" or "l0".

    Returns:
        float64 [n], in levels or pixels. Sums are taken in int64, so the figures are exact up to the last square root.
    """
    if norm == "l0":
        pixels: npt.NDArray[np.float64] = (delta != 0).any(axis=1).sum(axis=(1, 2)).astype(np.float64)
        return pixels
    flat = delta.reshape(len(delta), -1)
    if norm == "linf":
        # Not abs(): -(-128) does not fit int8.
        high, low = flat.max(axis=1).astype(np.float64), flat.min(axis=1).astype(np.float64)
        largest: npt.NDArray[np.float64] = np.maximum(high, -low)
        return largest
    assert norm == "l2", norm
    squares = np.einsum("nk,nk->n", flat, flat, dtype=np.int64).astype(np.float64)
    root: npt.NDArray[np.float64] = np.sqrt(squares)
    return root
