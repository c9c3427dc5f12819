"""Grey images that are stored with several channels: what is added to them must not give them colours."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def is_grey(images: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Whether images [..., C, H, W] have the same value in all channels of every pixel, bool [...]."""
    same: npt.NDArray[np.bool_] = np.asarray((images[..., 1:, :, :] == images[..., :1, :, :]).all(axis=(-3, -2, -1)))
    return same


def mean_of_channels(delta: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
    """The mean [..., 1, H, W] of the channels of a perturbation [..., C, H, W]: no grey one is nearer to it."""
    mean: npt.NDArray[np.float64] = delta.mean(axis=-3, keepdims=True)
    return mean
