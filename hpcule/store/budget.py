"""How large a perturbation is, in levels of the sample's grid."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def magnitude(delta: npt.NDArray[Any], norm: str) -> npt.NDArray[np.float64]:
    """Return the norm of each perturbation.

    Args:
        delta: integers [n, C, H, W], in levels.
        norm: "linf" or "l2".

    Returns:
        float64 [n], in levels. Sums are taken in int64, so the figures are exact up to the last square root.
    """
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
