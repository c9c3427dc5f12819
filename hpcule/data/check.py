"""What every source must satisfy, whatever it was read from."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from hpcule.config.errors import DataError, OpeningError
from hpcule.data.annotations import StoredArray
from hpcule.data.source import Labels, Source

_BLOCK_BYTES = 16 << 20
_MOST_CLASSES = 1_000_000


def grid_levels(images: Any, where: str) -> int:
    """The largest value of the images' grid: 255 for uint8, 65535 for uint16.

    Args:
        images: numpy array or HDF5 dataset; it is read only to describe what is wrong with it.
        where: file and member, for the message.

    Raises:
        DataError: any other type of number.
    """
    kind, size = images.dtype.kind, images.dtype.itemsize
    if kind == "u" and size in (1, 2):
        return 255 if size == 1 else 65535
    seen = f"{where}: the images are {images.dtype}"
    if kind == "f":
        nan = _first_nan(images)
        seen += f", and sample {nan} holds NaN" if nan is not None else ""
        remedy = "convert to uint8 (values in 0..1: round(255 * x)), or to uint16"
    else:
        remedy = "convert to uint8 or uint16"
    raise DataError(f"{seen}; a source holds integers on their own grid: {remedy}")


def sample_shape(shape: tuple[int, ...], where: str, channels_first: bool = False) -> tuple[int, int, int]:
    """(C, H, W) of the samples of an array [n, H, W], [n, H, W, C], or [n, C, H, W] if `channels_first`.

    Raises:
        DataError: another number of dimensions, no samples, empty images, or neither 1 nor 3 channels.
    """
    layout = "[n, C, H, W]" if channels_first else "[n, H, W] or [n, H, W, C]"
    seen = f"{where}: the images have the shape {list(shape)}"
    if len(shape) not in ((4,) if channels_first else (3, 4)):
        raise DataError(f"{seen}; valid is {layout}")
    if shape[0] == 0:
        raise DataError(f"{where}: no samples")
    if len(shape) == 3:
        channels, height, width = 1, shape[1], shape[2]
    elif channels_first:
        channels, height, width = shape[1:]
    else:
        height, width, channels = shape[1:]
    if channels not in (1, 3):
        raise DataError(f"{seen}, that is {channels} channels; valid is {layout} with 1 or 3 channels")
    if height == 0 or width == 0:
        raise DataError(f"{seen}: the images are empty")
    return channels, height, width


def to_samples(block: Any, channels_first: bool = False) -> Any:
    """Images as they are stored ([n, H, W], [n, H, W, C] or [n, C, H, W]) as contiguous, native [n, C, H, W]."""
    if block.ndim == 3:
        block = block[:, None]
    elif not channels_first:
        block = block.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(block, dtype=block.dtype.newbyteorder("="))


def checked_labels(raw: Any, count: int, where: str) -> Labels:
    """Class numbers [n] or [n, 1] of `count` images, as int64 [n].

    Args:
        raw: numpy array or HDF5 dataset, read only once its shape and type fit.
        count: number of images.
        where: file, for the message.

    Raises:
        DataError: as many labels as images are needed, each a whole number from 0 on, one an image.
    """
    if raw.ndim not in (1, 2):
        raise DataError(f"{where}: the labels have the shape {list(raw.shape)}; valid is [n] or [n, 1]")
    if raw.shape[0] != count or raw.size != count:
        raise DataError(f"{where}: labels that do not match: {raw.shape[0]} labels for {count} images")
    if raw.dtype.kind not in "uibf":
        raise DataError(f"{where}: the labels are {raw.dtype}; number the classes 0, 1, 2, ...")
    labels = np.asarray(raw).reshape(count)
    if labels.dtype.kind == "f":
        _refuse(np.isnan(labels), "NaN", where)
        odd = ~np.isfinite(labels) | (labels != np.floor(labels))
        _refuse(odd, f"{labels[odd.argmax()]}, no whole number", where)
    _refuse(labels < 0, "negative", where)
    limit = max(_MOST_CLASSES, count)
    if labels.max() >= limit:
        raise DataError(
            f"{where}: label {labels.max()} of sample {labels.argmax()} is too large; valid is 0..{limit - 1}"
        )
    return labels.astype(np.int64)


def check_masks(raw: StoredArray, count: int, shape: tuple[int, int, int], where: str) -> None:
    """Check masks of `count` images of this shape (C, H, W) by what is said of them alone.

    Args:
        raw: numpy array or HDF5 dataset.
        count: number of images.
        shape: of each.
        where: file, for the message.

    Raises:
        DataError: not one of 8 bits for every image, of its height and width.
    """
    if raw.dtype != np.uint8 or raw.shape != (count, *shape[1:]):
        raise DataError(
            f"{where}: masks {list(raw.shape)} of {raw.dtype}; valid is uint8 {[count, *shape[1:]]}, a class a pixel"
        )


def holds_several(raw: StoredArray) -> bool:
    """Whether stored labels are several a sample [n, L], and not one."""
    return bool(raw.ndim == 2 and raw.shape[1] > 1)


def numbered_classes(labels: Labels) -> tuple[str, ...]:
    """Names "0", "1", ... of the classes up to the largest label."""
    return tuple(str(k) for k in range(int(labels.max()) + 1))


def check_same_task(train: Source, test: Source) -> None:
    """Check that what is trained on `train` can be tested on `test`.

    Raises:
        DataError: sample shape, levels or classes differ; the message names both sources.
    """
    if test.rate != train.rate:
        rates = " and ".join(f"{s.name} has {s.rate or 'no'} samples a second" for s in (train, test))
        raise DataError(f"the test source does not fit the training source: {rates}; choose another --test")
    both = f"test source {test.name}:{test.split} does not fit training source {train.name}:{train.split}: "
    if test.shape[0] != train.shape[0]:
        raise DataError(f"{both}{test.shape[0]} channel(s), not {train.shape[0]}; choose another --test")
    if test.shape != train.shape and train.rate is not None:
        lengths = f"{test.shape[2]} samples, not {train.shape[2]}"
        remedy = "put both into one folder, below train and test, or give them one length"
        raise OpeningError(f"{both}{lengths}", remedy, "clip_length", str(train.shape[2]))
    if test.shape != train.shape:
        sizes = f"{test.shape[1]}x{test.shape[2]} pixels, not {train.shape[1]}x{train.shape[2]}"
        raise OpeningError(f"{both}{sizes}", "give both one size", "image_size", str(train.shape[1]))
    if test.levels != train.levels:
        raise DataError(f"{both}values up to {test.levels}, not {train.levels}; convert one of them")
    if train.labels is None:
        return
    if test.labels is None:
        raise DataError(f"{both}it has no labels; choose another --test")
    largest = int(test.labels.max())
    if largest >= train.class_count:
        raise DataError(
            f"{both}label {largest} where training knows {train.class_count} classes; choose another --test"
        )
    if not _same_numbering(train.class_names or (), test.class_names or ()):
        known, seen = (", ".join((source.class_names or ())[:10]) for source in (train, test))
        raise DataError(f"{both}its classes are {seen}, not {known}; give both the same classes in the same order")


def _same_numbering(train: tuple[str, ...], test: tuple[str, ...]) -> bool:
    """Whether a class number means the same class; plain numbers ("0", "1", ...) fit names that are no numbers."""
    numbers = tuple(str(k) for k in range(max(len(train), len(test))))
    for names, others in ((train, test), (test, train)):
        if names == numbers[: len(names)]:
            return all(other == k or not other.isdigit() for other, k in zip(others, numbers, strict=False))
    return test == train[: len(test)]


def _first_nan(images: Any) -> int | None:
    rows = max(1, _BLOCK_BYTES // max(1, images.dtype.itemsize * int(np.prod(images.shape[1:]))))
    for first in range(0, images.shape[0] if images.shape else 0, rows):
        block = np.asarray(images[first : first + rows])
        bad = np.isnan(block.reshape(len(block), -1)).any(axis=1)
        if bad.any():
            return first + int(bad.argmax())
    return None


def _refuse(bad: npt.NDArray[np.bool_], what: str, where: str) -> None:
    if bad.any():
        raise DataError(f"{where}: the label of sample {bad.argmax()} is {what}; number the classes 0, 1, 2, ...")
