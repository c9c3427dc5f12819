"""A few samples as PNG images inside the page: clean, perturbation, protected."""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from hpcule.data.sources.recording import SILENCE
from hpcule.nets.spectrogram import FLOOR, LogMel

LONGEST_SIDE = 256
"""Larger images are thinned to this many pixels a side: eight samples of a scanner would make a page of 100 MB."""

LOUDEST = 10.0
"""Natural logarithm of the power in a mel band that is white."""

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Pictures:
    """Samples to show.

    Attributes:
        clean: uint8 [m, C, H, W].
        delta: published minus clean, integers [m, C, H, W], in levels of the samples' own grid.
        protected: uint8 [m, C, H, W].
        names: m names, of the class for instance.
    """

    clean: Pixels
    delta: npt.NDArray[Any]
    protected: Pixels
    names: list[str]


@dataclass(frozen=True)
class Triplet:
    """One sample as three `data:` addresses."""

    name: str
    clean: str
    delta: str
    protected: str


def choose_samples(labels: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
    """Ids of `count` samples (all, where there are fewer) from as many classes as possible, grouped by class.

    The first sample of each class comes before the second of any, so the choice is nobody's taste.
    """
    by_class = np.argsort(labels, kind="stable")
    starts = np.searchsorted(labels[by_class], labels[by_class])
    place = np.arange(len(labels)) - starts
    chosen = by_class[np.lexsort((labels[by_class], place))][:count]
    return chosen[np.lexsort((chosen, labels[chosen]))]


def spectrograms(recordings: npt.NDArray[np.uint16], rate: int) -> Pixels:
    """Log-mel spectrograms uint8 [m, 1, bands, L] of recordings [m, 1, 1, T]: black is silence, high tones are up."""
    signals = torch.from_numpy(recordings[:, 0, 0].astype(np.float32) / SILENCE - 1)
    bands = LogMel(rate)(signals).numpy()[:, None, ::-1]
    lowest = np.log(FLOOR)
    shown: Pixels = (255 * (bands - lowest) / (LOUDEST - lowest)).round().clip(0, 255).astype(np.uint8)
    return shown


def gain(delta: npt.NDArray[Any], levels: int) -> int:
    """What to multiply perturbations with so that the largest one just reaches black or white.

    A whole number of at least 1, in brightness of the picture: 1 level of 65535 at gain 1 is 1/65535 of white.
    """
    largest = int(np.abs(delta.astype(np.int64)).max(initial=0))
    return max(1, levels // (2 * largest)) if largest else 1


def triplets(pictures: Pictures, levels: int) -> Iterator[Triplet]:
    """The samples, ready for the page; the perturbation is multiplied with `gain`, and grey is zero."""
    factor = gain(pictures.delta, levels)
    for clean, delta, protected, name in zip(
        pictures.clean, pictures.delta, pictures.protected, pictures.names, strict=True
    ):
        yield Triplet(name, _address(clean), _address(delta_picture(delta, factor, levels)), _address(protected))


def delta_picture(delta: npt.NDArray[Any], factor: int, levels: int) -> Pixels:
    """A perturbation [C, H, W] as uint8 picture: grey 128 is zero, brighter was raised, darker was lowered."""
    brightness = 128 + np.rint(delta.astype(np.float64) * factor * 255 / levels)
    return brightness.clip(0, 255).astype(np.uint8)


def thinning(height: int, width: int) -> int:
    """Every how many pixels one is shown."""
    return -(-max(height, width) // LONGEST_SIDE)


def png(image: Pixels) -> bytes:
    """Encode uint8 [C, H, W]: three channels as colours, otherwise the first one as grey."""
    step = thinning(*image.shape[1:])
    shown = image[:, ::step, ::step]
    pixels = np.moveaxis(shown, 0, 2) if len(shown) == 3 else shown[0]
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _address(image: Pixels) -> str:
    return f"data:image/png;base64,{b64encode(png(image)).decode()}"
