"""Stripping: what a few clean originals show of the perturbation of all samples of their class.

An attacker who has some originals next to their published copies estimates what was done to them, and undoes it on
every other published sample of the class. A pattern that a class shares is a difference of two images; a filter that a
class shares follows from a least-squares fit. Both ways are given here; neither knows the method or its seed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from hpcule.data.source import Samples

Way = Literal["pattern", "filter"]
Strip = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]
"""A function that takes the perturbation of a class off published samples [n, C, H, W], in levels."""
MOST_SPOTS = 0.02
"""Largest share of pixels that count as single pixels: of more, their difference is taken off like all others."""
FILTER_SIDE = 9
"""Side of the filter that undoes a filter, in pixels; an inverse is longer than what it inverts."""
RIDGE = 1e-4
"""Weight with which the fitted filter is drawn to the one that changes nothing, relative to the mean squared value."""


def pattern_strip(published: Samples, clean: Samples) -> Strip:
    """Take the mean difference off; single pixels, whose originals a constant has replaced, are filled from around.

    Args:
        published: samples [n, C, H, W] of one class.
        clean: their originals.
    """
    change = published.astype(np.float32) - clean
    pattern = change.mean(0)
    strength = np.abs(change).mean(0).max(0)
    spots = strength > strength.max() / 2
    if spots.mean() > MOST_SPOTS:
        spots[:] = False
    return lambda samples: _filled(samples - np.where(spots, 0, pattern), spots)


def _filled(samples: npt.NDArray[np.float32], spots: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """Samples whose spots [H, W] have the mean of the other pixels next to them, where there is one."""
    filled = samples.copy()
    for row, column in np.argwhere(spots):
        window = (slice(max(0, row - 1), row + 2), slice(max(0, column - 1), column + 2))
        others = ~spots[window]
        if others.any():
            filled[..., row, column] = samples[..., window[0], window[1]][..., others].mean(-1)
    return filled


def filter_strip(published: Samples, clean: Samples) -> Strip:
    """Filter each channel as least squares maps the published samples to their originals.

    Args:
        published: samples [n, C, H, W] of one class.
        clean: their originals.
    """
    channels, height, width = published.shape[1:]
    sides = (_odd(height), _odd(width))
    taps = [
        _fitted(published[:, channel : channel + 1], clean[:, channel].reshape(-1), sides)
        for channel in range(channels)
    ]
    weight = torch.stack(taps).reshape(channels, 1, *sides).float()

    def strip(samples: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        found: npt.NDArray[np.float32] = functional.conv2d(
            _padded(torch.from_numpy(samples), sides), weight, groups=channels
        ).numpy()
        return found

    return strip


def _odd(side: int) -> int:
    """The side of a filter for images of this side: odd, and small enough that the border can be mirrored."""
    return min(FILTER_SIDE, side - (side + 1) % 2)


def _padded(images: Tensor, sides: tuple[int, int]) -> Tensor:
    """Images with a mirrored border, so that a filter of these sides keeps their size."""
    across, down = sides[1] // 2, sides[0] // 2
    return functional.pad(images, (across, across, down, down), mode="reflect")


def _fitted(published: Samples, clean: Samples, sides: tuple[int, int]) -> Tensor:
    """The taps float64 [h * w] that bring one channel of published samples nearest to their originals."""
    same = torch.zeros(sides, dtype=torch.float64)
    same[sides[0] // 2, sides[1] // 2] = 1
    same = same.reshape(-1)
    square, cross = torch.zeros(len(same), len(same), dtype=torch.float64), torch.zeros_like(same)
    targets = torch.from_numpy(clean.astype(np.float64)).reshape(len(published), -1)
    for image, target in zip(torch.from_numpy(published.astype(np.float64)), targets, strict=True):
        around = functional.unfold(_padded(image[None], sides), sides)[0]
        square += around @ around.T
        cross += around @ (target - same @ around)
    square += torch.eye(len(same), dtype=torch.float64) * (RIDGE * square.diagonal().mean() + torch.finfo().tiny)
    taps: Tensor = same + torch.linalg.solve(square, cross)
    return taps


WAYS: Mapping[Way, Callable[[Samples, Samples], Strip]] = {"pattern": pattern_strip, "filter": filter_strip}
