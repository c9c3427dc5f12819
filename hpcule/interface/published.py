"""The protected samples of a store as a torch data set."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from hpcule.data.reader import to_tensor
from hpcule.data.source import Source
from hpcule.interface.handover import named, write_handover
from hpcule.publish.carry import carries, files_of, published_native, publishing
from hpcule.store.fingerprint import require_same_samples
from hpcule.store.keys import vault_of
from hpcule.store.read import StoreReader

if TYPE_CHECKING:
    from hpcule.interface.handover import Data, Labels


class PublishedDataset(Dataset[tuple[Any, int]]):
    """Protected samples behind the numbers 0..N-1, each (image, label), in the order of the clean ones.

    An image is a tensor uint8 [C, H, W], of 16-bit samples int32 [C, H, W]. Its values are those that `hpcule export`
    writes. So files of images that were crafted at `image_size` or in tiles come at their own sizes, one item an image:
    bring them to one size in `transform`. DICOM and NIfTI images come as the 8-bit levels that a viewer shows.
    Recordings come as one row [1, 1, T] of 16-bit values, silence being 32768, padded to one length. The label is -1
    where there are no labels.

    It holds paths alone and opens files when a process first reads from it: it can be pickled, and a DataLoader may
    fork or spawn its workers. Data that were arrays or data sets lie in a temporary file for as long as it lives.

    Attributes:
        labels: int64 [N], or None.
        classes: names of the classes.
        transform: see `Store.published`.
    """

    def __init__(
        self,
        store: Path,
        data: Data,
        *,
        labels: Labels | None = None,
        transform: Callable[[Any], Any] | None = None,
        key: str | Path | None = None,
    ) -> None:
        """Open the data and compare them with what the store was made for; see `Store.published`."""
        self._store, self._key, self.transform = store.absolute(), key, transform
        if isinstance(data, str | Path):
            self._data = named(data, labels, "data")
        else:
            folder = tempfile.mkdtemp(prefix="hpcule-")
            weakref.finalize(self, _remove, folder, os.getpid())
            self._data = str(write_handover(data, labels, Path(folder), "data"))
        self._opened: dict[int, tuple[StoreReader, Source]] = {}
        reader, source = self._open()
        require_same_samples(reader.manifest, source)
        files = files_of(source)
        self._count, self._own_sizes = len(files), carries(reader.manifest, source)
        self.labels = None if files.labels is None else torch.from_numpy(files.labels.astype(np.int64))
        self.classes = files.class_names or ()

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> tuple[Any, int]:
        """The image with this number, transformed, and its label."""
        number = int(index)
        if not -self._count <= number < self._count:
            raise IndexError(f"sample {number} of {self._count}")
        return self.__getitems__([number % self._count])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Any, int]]:
        """Several of them, which are read together; a DataLoader asks for a batch so."""
        images = self._images(np.asarray(indices, np.int64))
        labels = [-1] * len(indices) if self.labels is None else self.labels[list(indices)].tolist()
        if self.transform is not None:
            images = [self.transform(image) for image in images]
        return list(zip(images, labels, strict=True))

    def _images(self, ids: np.ndarray[Any, np.dtype[np.int64]]) -> Sequence[Tensor]:
        reader, source = self._open()
        if not self._own_sizes:
            return to_tensor(publishing(reader, source)(ids, source.read(ids))).unbind()
        files, images = files_of(source), []
        for image in ids.tolist():
            native = files.native(image)
            assert native is not None
            images.append(to_tensor(np.ascontiguousarray(published_native(reader, source, image, native).shown())))
        return images

    def _open(self) -> tuple[StoreReader, Source]:
        """The files, opened once a process: handles do not survive a fork."""
        process = os.getpid()
        if process not in self._opened:
            reader = StoreReader(vault_of(self._store, self._key))
            self._opened[process] = reader, reader.manifest.opening.source(self._data)
        return self._opened[process]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": {}}


def _remove(folder: str, process: int) -> None:
    """Remove the copy of the data, but not from a forked worker, whose parent still reads it."""
    if os.getpid() == process:
        shutil.rmtree(folder, ignore_errors=True)
