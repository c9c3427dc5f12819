"""Countermeasures that act once on samples as they are published, and give samples of the same type."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch.nn import functional

from hpcule.config.errors import UsageError
from hpcule.data.resize import resize_image, resize_planes
from hpcule.data.source import Samples
from hpcule.victim.countermeasures.table import Applied

LUMA = (19595, 38470, 7471)
"""Weights of red, green and blue in 65,536ths (ITU-R BT.601), the same as Pillow's."""


Shape = tuple[int, int, int]


def squeeze(samples: Samples, steps: Sequence[Applied], levels: int) -> Samples:
    """Apply steps in order to integer samples [n, C, H, W] of 0..levels.

    Raises:
        UsageError: a step cannot be had for samples of this kind.
    """
    for step in steps:
        samples = _STEPS[step.name](samples, step.strength or 0, levels)
    return samples


def squeezed_shape(step: Applied, shape: Shape) -> Shape:
    """Shape (C, H, W) of a sample after a step that acts once."""
    return (shape[0], int(step.strength or 0), int(step.strength or 0)) if step.name == "size" else shape


def grayscale(samples: Samples, strength: float, levels: int) -> Samples:
    """Luminance in all three channels; a single channel stays as it is."""
    return samples if samples.shape[1] != 3 else np.repeat(luminance(samples), 3, axis=1)


def jpeg(samples: Samples, quality: float, levels: int) -> Samples:
    """Compress samples as JPEG and decode them, with Pillow's own chroma subsampling (4:2:0).

    JPEG has 8 bits: samples of 16 are rounded to them first, and what is decoded is spread over 16 again.
    """
    result = np.empty_like(samples)
    for row, sample in zip(result, samples, strict=True):
        row[...] = _through_jpeg(np.rint(sample * (255 / levels)).astype(np.uint8), int(quality))
    result *= levels // 255
    return result


def bit_depth(samples: Samples, bits: float, levels: int) -> Samples:
    """Keep the highest bits of each value."""
    lost = max(0, levels.bit_length() - int(bits))
    return samples >> lost << lost


def blur(samples: Samples, sigma: float, levels: int) -> Samples:
    """Gaussian blur over four sigmas each way, with mirrored borders, rounded."""
    height, width = samples.shape[2:]
    reach = min(math.ceil(4 * sigma), height - 1, width - 1)
    if reach < 1:
        raise UsageError(f"blur needs images of at least 2 x 2 pixels; here are {height} x {width}")
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    images = torch.from_numpy(samples.astype(np.float32)).flatten(0, 1)[:, None]
    images = functional.pad(images, (reach,) * 4, mode="reflect")
    images = functional.conv2d(functional.conv2d(images, kernel[None, None, None]), kernel[None, None, :, None])
    return _to_levels(images.reshape(samples.shape).numpy(), samples, levels)


def lowpass(samples: Samples, percent: float, levels: int) -> Samples:
    """Keep this share of the rows and columns of each channel's discrete cosine transform, the lowest."""
    rows, columns = (_lowest_cosines(length, percent) for length in samples.shape[2:])
    return _to_levels(rows @ samples.astype(np.float32) @ columns, samples, levels)


def zscore(samples: Samples, strength: float, levels: int) -> Samples:
    """Each channel of a sample at mean 0 and variance 1: the mean lies in the middle of the levels, and three standard
    deviations reach their ends, where values are cut off."""
    values = samples.astype(np.float32)
    mean, deviation = values.mean((2, 3), keepdims=True), values.std((2, 3), keepdims=True)
    # A channel that has one value throughout has no deviation, and lies in the middle.
    return _to_levels(levels / 2 + (values - mean) / np.maximum(deviation, 1e-6) * levels / 6, samples, levels)


def equalize_histogram(samples: Samples, strength: float, levels: int) -> Samples:
    """Spread the luminance of each sample evenly over the levels; the channels move with it."""
    result = np.empty_like(samples)
    for row, sample in zip(result, samples, strict=True):
        light = luminance(sample[None])[0]
        moved = np.stack([_spread(plane, levels) for plane in light]) - light
        row[...] = _to_levels(sample + moved, sample, levels)
    return result


def luminance(samples: Samples) -> Samples:
    """Luminance [n, 1, H, W] of samples of three channels; others stay as they are."""
    if samples.shape[1] != 3:
        return samples
    weighted = sum(weight * samples[:, c].astype(np.int64) for c, weight in enumerate(LUMA))
    return ((np.asarray(weighted) + 2**15) >> 16)[:, None].astype(samples.dtype)


def at_size(samples: Samples, pixels: float, levels: int) -> Samples:
    """Every sample at pixels x pixels, bicubic; see `resize_planes`. Samples of 16 bits are floats for Pillow."""
    resized = np.empty((*samples.shape[:2], int(pixels), int(pixels)), samples.dtype)
    for row, sample in zip(resized, samples, strict=True):
        if levels == 255:
            row[...] = resize_planes(sample, int(pixels))
        else:
            for plane, channel in zip(row, sample.astype(np.float32), strict=True):
                floats = np.asarray(resize_image(Image.fromarray(channel), int(pixels)))
                plane[...] = _to_levels(floats, sample, levels)
    return resized


def _lowest_cosines(length: int, percent: float) -> npt.NDArray[np.float32]:
    """The orthogonal projection [length, length] onto the lowest of its cosines."""
    kept = max(1, round(length * percent / 100))
    cosines = np.cos(np.pi / length * np.arange(kept)[:, None] * (np.arange(length) + 0.5))
    cosines /= np.linalg.norm(cosines, axis=1, keepdims=True)
    return (cosines.T @ cosines).astype(np.float32)


def _spread(plane: Samples, levels: int) -> npt.NDArray[np.float64]:
    """Values [H, W] in 0..levels whose cumulative histogram is as straight as it can be, their order kept."""
    counts = np.bincount(plane.ravel(), minlength=levels + 1)
    lowest = counts[plane.min()]
    if lowest == plane.size:
        return plane.astype(np.float64)
    straight: npt.NDArray[np.float64] = (np.cumsum(counts) - lowest) * (levels / (plane.size - lowest))
    return straight[plane]


def _to_levels(values: npt.NDArray[np.floating], like: Samples, levels: int) -> Samples:
    rounded: Samples = np.rint(values).clip(0, levels).astype(like.dtype)
    return rounded


def _through_jpeg(sample: Samples, quality: int) -> Samples:
    image = Image.fromarray(np.moveaxis(sample, 0, -1) if len(sample) == 3 else sample[0])
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    values = np.asarray(Image.open(file))
    return np.moveaxis(values, -1, 0) if len(sample) == 3 else values[None]


_STEPS: dict[str, Callable[[Samples, float, int], Samples]] = {
    "grayscale": grayscale,
    "jpeg": jpeg,
    "bit-depth": bit_depth,
    "blur": blur,
    "lowpass": lowpass,
    "zscore": zscore,
    "equalize": equalize_histogram,
    "size": at_size,
}
