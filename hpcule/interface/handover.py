"""What callers give as data, as a DATA text that every part of this package opens.

Arrays, tensors and data sets are written to a temporary npz file: the worker processes read it, it may be larger than
memory, and all that holds for npz files (`image_size`, for example) holds for them. It lies in a folder of TMPDIR with
an unpredictable name, readable by its owner alone, and is removed at the end.
"""

from __future__ import annotations

import os
import re
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from hpcule.config.errors import DataError, UsageError
from hpcule.data.check import checked_labels, grid_levels, sample_shape

if TYPE_CHECKING:
    from torch import Tensor


class MapDataset(Protocol):
    """A map-style data set: items (image, label), or images alone, behind the numbers 0..N-1."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


Array: TypeAlias = npt.NDArray[Any]
Data: TypeAlias = "str | Path | Array | Tensor | MapDataset"
"""A path or a name; uint8 or uint16 images, numpy [N, H, W] or [N, H, W, C], torch [N, H, W] or [N, C, H, W]; or a data
set. Floats in [0, 1] are taken where every one is a multiple of 1/255, as torchvision's ToTensor leaves them."""
Labels: TypeAlias = "Array | Tensor | Sequence[int]"
"""Class numbers 0..K-1, [N]."""

_BLOCK_BYTES = 16 << 20
_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)
_OFF_GRID = 0.01
"""Largest distance of a float from its level, in levels; float32 holds k/255 to 0.00002 of a level."""


@contextmanager
def handed_over(data: Data, labels: Labels | None = None, what: str = "data") -> Iterator[str]:
    """DATA for as long as the context lasts.

    Args:
        data: see `Data`.
        labels: of arrays, and of data sets that have none.
        what: the argument's name, for messages.

    Raises:
        UsageError: labels for a path, or for data that have labels.
        DataError: the images or the labels are of a shape or type that no source has.
    """
    if isinstance(data, str | Path):
        yield named(data, labels, what)
        return
    with tempfile.TemporaryDirectory(prefix="hpcule-") as folder:
        yield str(write_handover(data, labels, Path(folder), what))


def named(data: str | Path, labels: Labels | None, what: str) -> str:
    """The text of a path or a name, which brings its own labels."""
    if labels is not None:
        raise UsageError(f"labels go with arrays, and {what}={str(data)!r} brings its own: leave them out")
    return str(data)


def write_handover(data: Data, labels: Labels | None, folder: Path, what: str) -> Path:
    """Write images and labels into a new npz file in `folder`; raises as `handed_over`."""
    samples = _samples(data, labels, what)
    path = folder / f"{samples.name}.npz"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            _write(archive, "images", (samples.count, *samples.shape), samples.dtype, samples.blocks())
            found = samples.labels()
            if found is not None:
                _write(archive, "labels", found.shape, found.dtype, iter([found]))
    except OSError as error:
        raise DataError(
            f"{what}: no room for a copy in {folder.parent} ({error.strerror}): set TMPDIR to a larger folder"
        ) from None
    return path


def _write(
    archive: zipfile.ZipFile, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], blocks: Iterator[Array]
) -> None:
    with archive.open(zipfile.ZipInfo(f"{name}.npy", _ZIP_EPOCH), "w", force_zip64=True) as member:
        header = {"descr": dtype.str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(member, header)
        for block in blocks:
            member.write(np.ascontiguousarray(block, dtype=dtype).data)


class _Samples(Protocol):
    """Images that are read once, in order, and then their labels."""

    name: str
    count: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def blocks(self) -> Iterator[Array]: ...

    def labels(self) -> Array | None: ...


def _samples(data: Data, labels: Labels | None, what: str) -> _Samples:
    import torch
    from torch.utils.data import IterableDataset

    if isinstance(data, np.ndarray | torch.Tensor):
        return _ArraySamples(data, labels, what)
    if isinstance(data, IterableDataset):
        raise UsageError(f"{what} is an iterable data set, whose samples have no numbers: pass list({what}) instead")
    if not hasattr(data, "__getitem__") or not hasattr(data, "__len__"):
        valid = "a path or a name, an array or tensor of images, or a map-style data set of (image, label)"
        raise UsageError(f"{what} is {type(data).__name__}; valid are {valid}")
    return _DatasetSamples(data, labels, what)  # type: ignore[arg-type]


class _ArraySamples:
    name = "arrays"

    def __init__(self, data: Array | Tensor, labels: Labels | None, what: str) -> None:
        if data.ndim not in (3, 4):
            valid = "[N, H, W] or [N, H, W, C] of numpy, [N, H, W] or [N, C, H, W] of torch"
            raise DataError(f"{what} has the shape {list(data.shape)}; valid are images {valid}")
        self._images = _channels_last(data, what)
        self.count, self.shape = len(self._images), self._images.shape[1:]
        sample_shape(self._images.shape, what)
        self._what = what
        self.dtype = _levels(self._images[:1], what, 0).dtype
        self._labels = None if labels is None else _checked_labels(labels, self.count, what)

    def blocks(self) -> Iterator[Array]:
        rows = max(1, _BLOCK_BYTES // max(1, self._images[:1].nbytes))
        for first in range(0, self.count, rows):
            yield _levels(self._images[first : first + rows], self._what, first)

    def labels(self) -> Array | None:
        return self._labels


class _DatasetSamples:
    def __init__(self, data: MapDataset, labels: Labels | None, what: str) -> None:
        self.name = re.sub(r"\W", "", type(data).__name__) or "dataset"
        self._data, self._what, self.count = data, what, len(data)
        if not self.count:
            raise DataError(f"{what}: no samples")
        self._given = None if labels is None else _checked_labels(labels, self.count, what)
        self._found: list[int | None] = []
        # Kept, and not read again: an augmented sample would be another one.
        self._first = self._image(0)
        self.shape, self.dtype = self._first.shape, self._first.dtype
        sample_shape((self.count, *self.shape), what)

    def blocks(self) -> Iterator[Array]:
        yield self._first
        for number in range(1, self.count):
            image = self._image(number)
            if (image.shape, image.dtype) != (self.shape, self.dtype):
                seen = f"sample {number} is {list(image.shape)} of {image.dtype}"
                raise DataError(
                    f"{self._what}: {seen}, sample 0 is {list(self.shape)} of {self.dtype}: bring all to one size in "
                    "the data set's transform, or pass the path of a folder of images, and image_size"
                )
            yield image

    def labels(self) -> Array | None:
        unlabelled = [number for number, label in enumerate(self._found) if label is None]
        if unlabelled and len(unlabelled) < self.count:
            raise DataError(
                f"{self._what}: sample {unlabelled[0]} has no label, and others have: give each (image, label)"
            )
        if unlabelled:
            return self._given
        if self._given is not None:
            raise UsageError(f"labels are given twice: {self._what} yields (image, label), so leave labels out")
        return _checked_labels(np.array(self._found, np.int64), self.count, self._what)

    def _image(self, number: int) -> Array:
        item, where = self._data[number], f"{self._what}: sample {number}"
        image, label = item, None
        if isinstance(item, tuple | list):
            if not 1 <= len(item) <= 2:
                raise DataError(f"{where} has {len(item)} parts; valid are (image, label), or the image alone")
            image = item[0]
            label = _label(item[1], where) if len(item) == 2 else None
        self._found.append(label)
        pixels = _pixels(image, where)
        sample_shape((1, *pixels.shape), where)
        whole: Array = _levels(pixels[None], where, None)[0]
        return whole


def _pixels(image: object, where: str) -> Array:
    """One image as [H, W] or [H, W, C]."""
    import torch
    from PIL import Image

    if isinstance(image, Image.Image):
        if image.mode not in ("L", "RGB", "I;16"):
            raise DataError(
                f"{where} is a PIL image of mode {image.mode}; valid are L, RGB and I;16: "
                "image.convert('RGB') in the data set's transform"
            )
        decoded: Array = np.asarray(image)
        return decoded
    if isinstance(image, np.ndarray | torch.Tensor) and image.ndim in (2, 3):
        pixels: Array = _channels_last(image[None], where)[0]
        return pixels
    seen = f"{type(image).__name__}{list(image.shape) if isinstance(image, np.ndarray | torch.Tensor) else ''}"
    valid = "a PIL image, an array [H, W] or [H, W, C], or a tensor [H, W] or [C, H, W]"
    raise DataError(f"{where}: the image is {seen}; valid are {valid}")


def _channels_last(images: Array | Tensor, where: str) -> Array:
    """Images [n, H, W] or [n, H, W, C] of numpy as they are, of torch from [n, H, W] or [n, C, H, W]."""
    import torch

    if isinstance(images, np.ndarray):
        if images.ndim == 4 and images.shape[3] not in (1, 3) and images.shape[1] in (1, 3):
            raise DataError(
                f"{where}: numpy images of the shape {list(images.shape)} seem to be [N, C, H, W]; channels come last "
                "in numpy, first in torch: pass torch.from_numpy(images), or images.transpose(0, 2, 3, 1)"
            )
        return images
    if images.dtype in (torch.bfloat16, torch.float16):
        raise DataError(f"{where}: {images.dtype} does not hold 256 levels: pass uint8, or float32 in [0, 1]")
    array: Array = images.detach().cpu().numpy()
    return array.transpose(0, 2, 3, 1) if array.ndim == 4 else array


def _levels(images: Array, where: str, first: int | None) -> Array:
    """Images on their own grid: integers as they are, floats in [0, 1] as uint8 where they are multiples of 1/255.

    Args:
        images: [n, H, W] or [n, H, W, C].
        where: for messages.
        first: number of the first image; None: `where` names the only one.

    Raises:
        DataError: another type, values outside [0, 1], or between two levels.
    """
    if images.dtype not in (np.float32, np.float64):
        grid_levels(images, where)
        return images
    scaled = images * 255
    levels = np.rint(scaled)
    flat = levels.reshape(len(levels), -1)
    outside = ~((flat >= 0) & (flat <= 255)).all(1)
    if outside.any():
        row = int(outside.argmax())
        low, high = images[row].min(), images[row].max()
        raise DataError(
            f"{_sample(where, first, row)} holds floats from {low:g} to {high:g}; valid are uint8, uint16, or floats "
            "in [0, 1] that are multiples of 1/255: leave the normalisation out"
        )
    between = (np.abs(scaled - levels) > _OFF_GRID).reshape(len(levels), -1).any(1)
    if between.any():
        raise DataError(
            f"{_sample(where, first, int(between.argmax()))} holds floats in [0, 1] that are no multiples of 1/255, as "
            "resizing and augmentation leave them, and a protected copy is made of whole levels: round them with "
            "(255 * images).round() and pass uint8"
        )
    whole: Array = levels.astype(np.uint8)
    return whole


def _sample(where: str, first: int | None, row: int) -> str:
    return where if first is None else f"{where}: sample {first + row}"


def _label(label: object, where: str) -> int:
    """A class number from Python, numpy or torch; MedMNIST's data sets give an array of one number."""
    import torch

    value: object = label
    if isinstance(label, np.ndarray | np.generic | torch.Tensor) and list(label.shape) in ([], [1]):
        value = label.item()
    if isinstance(value, bool) or not isinstance(value, int):
        raise DataError(
            f"{where}: the label is {type(label).__name__} {label!s:.40}; valid is a whole number from 0 on"
        )
    return value


def _checked_labels(labels: Labels, count: int, what: str) -> Array:
    import torch

    array = labels.detach().cpu().numpy() if isinstance(labels, torch.Tensor) else np.asarray(labels)
    return checked_labels(array, count, f"labels of {what}")
