"""HDF5 files of images and labels, from whomever: nothing is read outside the file, and no foreign filter runs."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from hpcule.config.errors import DataError, first_line, one_line
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
from hpcule.data.sources.array import MOST_COMPRESSED, SPLITS, Array, byte_count, member_names, splits_of
from hpcule.data.sources.hdf5_chunks import FILTERS, DecodedChunks, filters_of
from hpcule.data.sources.hdf5_isolated import require_harmless

_NAMES = [name for split in (*SPLITS, "all") for name in member_names(split)]
_CACHE_BYTES = 32 << 20
"""Read in the order of the file, one chunk in the cache is enough; HDF5 caches none that is larger than this."""


def hdf5_splits(path: Path) -> tuple[str, ...]:
    """Splits of an HDF5 file: some of train, val, test, or "all".

    Raises:
        DataError: not an HDF5 file, or one without images.
    """
    with _opened(path) as file, _damage_named(str(path)):
        return splits_of(file.keys(), str(path))


class Hdf5Source(Source):
    """One split: dataset `{split}_images` (or `images`) [n, H, W] or [n, H, W, C], `{split}_labels` [n], or [n, L] of
    several labels each, `{split}_label_matrix` [n, L], and `{split}_masks` [n, H, W].

    The attribute layout="NCHW" of the images says [n, C, H, W].
    """

    kind = "hdf5"

    def __init__(self, path: Path, split: str) -> None:
        """Check the split and read its labels.

        Raises:
            DataError: the file is damaged, leads out of itself, or holds something else.
        """
        self.path, self.name, self.split = path, one_line(path.stem), split
        self._images_name, *label_names, masks_name = member_names(split)
        where = f"{path} ({split})"
        with _opened(path) as file, _damage_named(where):
            images = _own_dataset(file, self._images_name, path)
            if images.dtype.kind == "f":
                DecodedChunks(images).require_all()  # which are read to find NaN
            self._channels_first = _layout(images) == "NCHW"
            self.levels = grid_levels(images, where)
            self.shape = sample_shape(images.shape, where, self._channels_first)
            self._count: int = images.shape[0]
            self.labels = None
            for name in (name for name in label_names if name in file):
                labels = _own_dataset(file, name, path)
                DecodedChunks(labels).require_all()
                if name == label_names[1] or holds_several(labels):
                    self.label_matrix = label_matrix(labels, self._count, where)
                else:
                    self.labels = narrowest(checked_labels(labels, self._count, where))
            has_masks = masks_name in file
            if has_masks:
                check_masks(_own_dataset(file, masks_name, path), self._count, self.shape, where)
        self.class_names = None if self.labels is None else numbered_classes(self.labels)
        self._handles: dict[tuple[int, str], tuple[Any, Any, DecodedChunks]] = {}
        if has_masks:
            self.masks = ArrayMasks(_Rows(self, masks_name), where=where)

    def __len__(self) -> int:
        return self._count

    def read(self, ids: Ids) -> Samples:
        """See `Source.read`."""
        samples: Samples = to_samples(self.rows(self._images_name, ids), self._channels_first)
        return samples

    def rows(self, name: str, ids: Ids) -> Array:
        """Rows of a dataset. Neighbouring ids are read together, and each chunk once, in the order of the file.

        Raises:
            DataError: the file is damaged.
        """
        dataset, chunks = self._dataset(name)
        order = np.argsort(ids, kind="stable")
        ordered = ids[order]
        block = np.empty((len(ids), *dataset.shape[1:]), dataset.dtype)
        ends = [*np.flatnonzero(np.diff(ordered) != 1) + 1, len(ids)] if len(ids) else []
        with _damage_named(str(self.path)):
            # Slices rather than lists of rows: HDF5's point selections took ten times as long on chunked data.
            for first, end in zip([0, *ends], ends, strict=False):
                start, stop = int(ordered[first]), int(ordered[end - 1]) + 1
                chunks.require_rows(start, stop)
                block[order[first:end]] = dataset[start:stop]
        return block

    def _dataset(self, name: str) -> tuple[Any, DecodedChunks]:
        """A dataset, opened once a process: a handle does not survive a fork, and a new one has an empty cache."""
        handle = os.getpid(), name
        if handle not in self._handles:
            file = _opened(self.path)
            # The file is kept together with its dataset, because closing the file closes the dataset.
            dataset = _own_dataset(file, name, self.path)
            self._handles[handle] = (file, dataset, DecodedChunks(dataset))
        return self._handles[handle][1:]

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_handles": {}}


class _Rows:
    """A dataset of a source, by rows."""

    def __init__(self, source: Hdf5Source, name: str) -> None:
        self._source, self._name = source, name

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, ids: Ids) -> Array:
        return self._source.rows(self._name, ids)


def _opened(path: Path) -> Any:
    try:
        require_harmless(path, _NAMES)
        # No locks: file systems of clusters often have none, and this file is only read.
        return h5py.File(path, "r", locking=False, rdcc_nbytes=_CACHE_BYTES)
    except OSError as error:
        raise DataError(f"{path} is not a whole HDF5 file ({first_line(error)}); get or write it again") from None


def _own_dataset(file: h5py.File, name: str, path: Path) -> Any:
    """The dataset `name`, if all of its bytes are in this file and only HDF5's own filters are needed to read it."""
    where = f"{path}: {name}"
    if file.id.links.get_info(name.encode()).type != h5py.h5l.TYPE_HARD:
        raise DataError(f"{where} is a link; hpcule reads only what lies in the file itself: copy the data into it")
    dataset = file[name]
    if not isinstance(dataset, h5py.Dataset):
        raise DataError(f"{where} is a group; valid is a dataset")
    if dataset.shape is None:
        raise DataError(f"{where}: no samples")
    if dataset.is_virtual or dataset.external:
        raise DataError(f"{where} keeps its data in other files; copy the data into this one")
    for code, _, _, label in filters_of(dataset):
        if code not in FILTERS:
            seen = label.decode(errors="replace") or code
            raise DataError(f"{where} is packed with the filter {seen}; valid are gzip, lzf, szip, shuffle, fletcher32")
    if not _is_written(dataset):
        raise DataError(f"{where}: parts were never written, and would read as zeros; write the file again")
    return dataset


def _is_written(dataset: h5py.Dataset) -> bool:
    """Whether the file holds as many bytes or chunks as the dataset's shape says."""
    stored = dataset.id.get_storage_size() * (MOST_COMPRESSED if dataset.chunks else 1)
    # h5py's own figure overflows.
    if byte_count(dataset.dtype, dataset.shape) > stored:
        return False
    if dataset.chunks is None:
        return True
    chunks = [math.ceil(length / chunk) for length, chunk in zip(dataset.shape, dataset.chunks, strict=True)]
    return bool(dataset.id.get_num_chunks() == math.prod(chunks))


@contextmanager
def _damage_named(where: str) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError, LookupError, ValueError, TypeError) as error:  # what h5py makes of HDF5's errors
        raise DataError(f"{where} is damaged ({first_line(error)}); get or write it again") from None


def _layout(images: h5py.Dataset) -> str:
    layout = images.attrs.get("layout", "")
    return layout.decode(errors="replace") if isinstance(layout, bytes) else str(layout)
