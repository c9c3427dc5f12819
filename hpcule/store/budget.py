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
    """

    norm: Norm
    epsilon: float

    def dtype(self, levels: int) -> np.dtype[Any]:
        """The smallest of int8, int16 and int32 that holds -m..m with room for a fill value below.

        m is epsilon for L-infinity and the grid's levels otherwise, where one element may carry the whole budget.
        """
        largest = self.epsilon if self.norm == "linf" else levels
        return next(np.dtype(t) for t in (np.int8, np.int16, np.int32) if largest <= np.iinfo(t).max)


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


def excess(delta: npt.NDArray[Any], epsilon: float, norm: str) -> tuple[int, float] | None:
    """Return (position, norm in levels) of the first perturbation above `epsilon`, or None."""
    sizes = magnitude(delta, norm)
    over = np.flatnonzero(sizes > epsilon)
    return (int(over[0]), float(sizes[over[0]])) if over.size else None
