"""Sources that are one array of images and one of labels, in memory or mapped from a file."""

from __future__ import annotations

import mmap
import shutil
import tempfile
from collections.abc import Iterable
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from hpcule.config.errors import DataError
from hpcule.data.annotations import ArrayMasks, label_matrix
from hpcule.data.check import (
    check_masks,
    checked_labels,
    grid_levels,
    holds_several,
    numbered_classes,
    sample_shape,
    to_samples,
)
from hpcule.data.source import Ids, Samples, Source, narrowest
from hpcule.data.sources.mapped import Pages

Array = npt.NDArray[Any]
Order = Literal["C", "F"]

SPLITS = ("train", "val", "test")
MOST_COMPRESSED = 1100
"""Deflate cannot shrink data more than 1032 times: what claims more is a trap for memory."""
_BLOCK = 1 << 20


class ArraySource(Source):
    """Images [n, H, W] or [n, H, W, C], their class numbers or several labels each, and masks.

    A mapped array stays on disk; what `read` touches is the file system's cache, which the system takes back as needed.
    """

    def __init__(
        self,
        images: Array,
        labels: Array | None,
        *,
        name: str,
        kind: str,
        split: str,
        where: str,
        class_names: tuple[str, ...] | None = None,
        matrix: Array | None = None,
        masks: Array | None = None,
    ) -> None:
        """Check and take the arrays.

        Args:
            images: uint8 or uint16 [n, H, W] or [n, H, W, C].
            labels: class numbers [n] or [n, 1], or several labels [n, L], or None.
            name: as in `Source`.
            kind: as in `Source`.
            split: as in `Source`.
            where: file, for messages.
            class_names: names of all classes; numbers if None.
            matrix: several labels [n, L] besides class numbers, or None.
            masks: class numbers uint8 [n, H, W], or None.

        Raises:
            DataError: see `check`.
        """
        self.name, self.kind, self.split = name, kind, split
        self.levels = grid_levels(images, where)
        self.shape = sample_shape(images.shape, where)
        self.labels = None
        if matrix is None and labels is not None and holds_several(labels):
            labels, matrix = None, labels
        if labels is not None:
            self.labels = narrowest(checked_labels(labels, len(images), where))
        if matrix is not None:
            self.label_matrix = label_matrix(matrix, len(images), where)
        if masks is not None:
            check_masks(masks, len(images), self.shape, where)
            self.masks = ArrayMasks(masks, where=where)
        self.class_names = None if self.labels is None else class_names or numbered_classes(self.labels)
        self.images = images
        self._pages = Pages(*([images.base] if isinstance(images.base, mmap.mmap) else []))

    def __len__(self) -> int:
        return len(self.images)

    def read(self, ids: Ids) -> Samples:
        """See `Source.read`."""
        # Indexing an ndarray view: np.memmap would wrap each result in its own class.
        block = np.asarray(self.images)[ids]
        self._pages.touched()
        samples: Samples = to_samples(block)
        return samples


def splits_of(members: Iterable[str], where: str) -> tuple[str, ...]:
    """Splits of a file whose arrays are called `train_images`, `val_images`, ..., or only `images` (split "all").

    Raises:
        DataError: no images under these names.
    """
    members = sorted(members)
    found = tuple(split for split in SPLITS if f"{split}_images" in members)
    if found:
        return found
    if "images" in members:
        return ("all",)
    raise DataError(
        f"{where} holds {', '.join(members[:10]) or 'nothing'}; valid are images and labels, or "
        f"train_images, train_labels, val_images, ..., test_labels"
    )


def member_names(split: str) -> tuple[str, str, str, str]:
    """What the images, the labels, the matrix of labels and the masks of a split are called in a file."""
    before = "" if split == "all" else f"{split}_"
    return f"{before}images", f"{before}labels", f"{before}label_matrix", f"{before}masks"


class Stream(Protocol):
    """What can be read from front to back."""

    def read(self, size: int, /) -> bytes:
        """Read at most `size` bytes; return no bytes at the end of the file."""


def spool(stream: Stream, dtype: np.dtype[Any], shape: tuple[int, ...], order: Order, where: str) -> Array:
    """Map an array that is compressed in its file: unpack it into a temporary file that has no name.

    The file goes away with the mapping, also when the process is killed.

    Raises:
        DataError: the stream is damaged, shorter or longer than the array, or the temporary folder is full.
    """
    size = byte_count(dtype, shape)
    folder = tempfile.gettempdir()
    if size > shutil.disk_usage(folder).free:
        raise DataError(f"{where}: {size >> 20} MiB to unpack, more than {folder} has; set TMPDIR to a larger folder")
    with tempfile.TemporaryFile() as unpacked:
        left = size + 1
        while left and (block := stream.read(min(left, _BLOCK))):
            left -= len(block)
            try:
                unpacked.write(block)
                unpacked.flush()
            except OSError as error:
                raise DataError(
                    f"{where}: cannot unpack it into {folder} ({error.strerror}); set TMPDIR to a larger folder"
                ) from None
        if left != 1:
            amount = "more" if left == 0 else f"{size + 1 - left} bytes"
            raise DataError(f"{where}: {amount} where its header says {size} bytes; get the file again")
        return np.memmap(unpacked, dtype, "r", 0, shape, order)


def byte_count(dtype: np.dtype[Any], shape: tuple[int, ...]) -> int:
    """Bytes of an array, in Python's integers, which do not overflow on what an untrusted header says."""
    size = dtype.itemsize
    for length in shape:
        size *= length
    return size
