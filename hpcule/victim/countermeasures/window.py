"""Windows: how a trainer maps stored values to levels, in place of the window that a file names.

Of images with more than 8 bits, such as DICOM, NIfTI and arrays of 16 bits, everybody displays what he likes. What is
crafted in one window is fainter in a wider one, and partly beyond the ends of another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import numpy.typing as npt

from hpcule.config.errors import UsageError
from hpcule.data.grid import HOUNSFIELD, Grid, as_levels
from hpcule.data.source import Ids, Native, Samples
from hpcule.victim.countermeasures.table import Applied
from hpcule.victim.published import Published

CT_WINDOWS: Mapping[str, tuple[float, float]] = {
    "lung-window": (-600, 1500),
    "soft-tissue-window": (50, 400),
    "bone-window": (400, 1800),
}
"""Centres and widths in Hounsfield units, as radiologists display CT of lungs, of soft tissue, and of bone."""
MOST_VALUES, MOST_OF_AN_IMAGE = 1 << 24, 10_000
"""Largest number of values that a window of a set is fitted to, and of one image."""

Values = npt.NDArray[np.float64]
Window = Callable[[Values, Values], Values]
"""A function of an image's values and of those that count that returns shares of white, not clipped to 0 to 1."""


def in_window(samples: Published, step: Applied, window: Window) -> Published:
    """A set whose images are displayed in a window: their stored values, or the samples where they have none.

    Raises:
        UsageError: the window is in Hounsfield units, and images do not say that their values are.
    """
    if samples.is_stored:
        return samples.displayed(lambda native: as_levels(window(*_values(native, step))))
    if step.name in CT_WINDOWS:
        raise UsageError(_without_hounsfield(step, samples.source.name))
    levels = samples.source.levels

    def change(ids: Ids, images: Samples) -> Samples:
        result = np.empty_like(images)
        for row, image in zip(result, images.astype(np.float64), strict=True):
            row[...] = np.rint(window(image, image.ravel()).clip(0, 1) * levels)
        return result

    return samples.through(change)


def window_of(step: Applied, train: Published) -> Window:
    """The window of a step.

    `window-P` clips each image to the percentiles P and 100 - P of its values. `set-window-P` does so with those of the
    training set, and has the set's mean in the middle: nnU-Net's normalisation of CT (Isensee et al., Nature Methods
    2021), which divides by the standard deviation, where levels leave room up to the percentile that is further away.

    Args:
        step: a window.
        train: the training set, for a step that is fitted.

    Raises:
        UsageError: it is not known how the images are published.
    """
    if step.name in CT_WINDOWS:
        centre, width = CT_WINDOWS[step.name]
        return lambda values, counted: _shares(values, centre - width / 2, centre + width / 2)
    percent = step.strength or 0
    if step.name == "window":
        return lambda values, counted: _shares(values, *_ends(counted, percent))
    some = _some_values(train, step)
    low, high = _ends(some, percent)
    mean = float(some.mean())
    reach = max(abs(high - mean), abs(mean - low))
    return lambda values, counted: _shares(values.clip(low, high), mean - reach, mean + reach)


def _shares(values: Values, black: float, white: float) -> Values:
    """Shares of white; the middle where black is white."""
    return (values - black) / (white - black) if white > black else np.full(values.shape, 0.5)


def _ends(values: Values, percent: float) -> tuple[float, float]:
    """The percentile and the one as far from the other end; the ends themselves where these are the same."""
    low, high = np.percentile(values, (percent, 100 - percent))
    return (float(low), float(high)) if high > low else (float(values.min()), float(values.max()))


def _values(native: Native, step: Applied) -> tuple[Values, Values]:
    """What the pixels of an image with stored values are in a window: all of them, and those that are no padding."""
    grid = native.grid
    assert grid is not None
    if step.name not in CT_WINDOWS:
        values = grid.bright(native.pixels)
    elif _in_hounsfield(grid):
        values = grid.meant(native.pixels)
    else:
        raise UsageError(_without_hounsfield(step, "an image"))
    counted = values[~grid.pads(native.pixels)]
    return values, counted if counted.size else values.ravel()


def _in_hounsfield(grid: Grid) -> bool:
    """Whether an image does not say otherwise: a NIfTI volume names no unit."""
    return grid.scale is not None and grid.scale.unit in (HOUNSFIELD, "")


def _without_hounsfield(step: Applied, what: str) -> str:
    return (
        f"{step} is for CT in DICOM or NIfTI files, and {what} is not said to be in Hounsfield units: leave it out, or "
        "take window-0.5, which depends on the values of each image alone"
    )


def _some_values(train: Published, step: Applied) -> Values:
    """Values of a set, as many of each image, spread evenly over it."""
    most = max(1, min(MOST_OF_AN_IMAGE, MOST_VALUES // len(train)))
    images: Iterator[Values]
    if train.is_stored:
        images = (_values(native, step)[1] for native in train.natives())
    else:
        images = (sample.ravel() for samples, _ in train.blocks() for sample in samples.numpy().astype(np.float64))
    return np.concatenate([_spread(values, most) for values in images])


def _spread(values: Values, most: int) -> Values:
    """Values spread evenly over all, this number at most."""
    count = min(most, len(values))
    return values[np.arange(count) * len(values) // count]
