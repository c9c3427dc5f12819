"""Perturbations of single samples at the speed of a memory map."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt

from hpcule.data.source import Ids
from hpcule.data.sources.mapped import Pages
from hpcule.store.hdf5 import DamageError, as_damage
from hpcule.store.manifest import Manifest

_UNKNOWN = -1


class MappedRows:
    """Deltas of a store that is not compressed, copied by id from where they lie in the files.

    HDF5 reads a chunk whole to give one row of it, which at random is a hundred times slower. But it checks the chunk's
    checksum: so every chunk is read through HDF5 once, when one of its rows is first wanted.

    Args:
        store: the folder.
        manifest: its manifest.
        dataset: opens the deltas of a shard.
    """

    def __init__(self, store: Path, manifest: Manifest, dataset: Callable[[int], h5py.Dataset]) -> None:
        self._files = [store / entry.file for entry in manifest.shards]
        self._firsts = np.array([entry.first for entry in manifest.shards])
        self._dataset = dataset
        self._size = manifest.delta_dtype.itemsize * int(np.prod(manifest.sample_shape))
        self._counts = [entry.count for entry in manifest.shards]
        self._addresses: npt.NDArray[np.int64] | None = None
        self._maps: dict[int, mmap.mmap] = {}
        self._pages = Pages()

    def copy(self, ids: Ids, out: npt.NDArray[np.integer]) -> None:
        """Copy the rows of `ids` [n] into a contiguous array [n, C, H, W].

        Raises:
            DamageError: a shard is not what the manifest says.
        """
        if not len(ids):
            return
        if self._addresses is None:
            self._addresses = self._unknown()
        owners = np.searchsorted(self._firsts, ids, side="right") - 1
        for index in np.unique(owners[self._addresses[ids] == _UNKNOWN]).tolist():
            self._look_up(index, ids[owners == index] - int(self._firsts[index]), self._addresses)
        target, size, addresses = out.reshape(-1).view(np.uint8).data, self._size, self._addresses[ids]
        # Rows that follow each other in the file too are one copy.
        follows = (np.diff(addresses) == size) & (np.diff(owners) == 0)
        starts = np.flatnonzero(np.concatenate([[True], ~follows]))
        lengths = np.diff(starts, append=len(ids)) * size
        to = 0
        for index, start, length in zip(
            owners[starts].tolist(), addresses[starts].tolist(), lengths.tolist(), strict=True
        ):
            with memoryview(self._maps[index]) as memory:
                target[to : to + length] = memory[start : start + length]
            to += length
        self._pages.touched()

    def close(self) -> None:
        """Let go of the files."""
        self._addresses = None
        self._pages = Pages()
        while self._maps:
            self._maps.popitem()[1].close()

    def _unknown(self) -> npt.NDArray[np.int64]:
        """An address for each sample, once all files are seen to be large enough for theirs."""
        for path, count in zip(self._files, self._counts, strict=True):
            with as_damage(path):
                if path.stat().st_size < count * self._size:
                    raise DamageError("layout", path, "is not fully there: restore it from a copy")
        return np.full(sum(self._counts), _UNKNOWN, np.int64)

    def _look_up(self, index: int, rows: Ids, addresses: npt.NDArray[np.int64]) -> None:
        """Find, and check, the chunks of a shard that hold these rows."""
        path, dataset, first = self._files[index], self._dataset(index), int(self._firsts[index])
        if not _is_plain(dataset):
            raise DamageError("layout", path, "its deltas are packed: restore it from a copy")
        a_chunk: int = dataset.chunks[0]
        with as_damage(path):
            if index not in self._maps:
                with path.open("rb") as file:
                    self._maps[index] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
                self._pages.add(self._maps[index])
            for chunk in np.unique(rows // a_chunk).tolist():
                start, stop = chunk * a_chunk, min((chunk + 1) * a_chunk, len(dataset))
                if addresses[first + start] != _UNKNOWN:
                    continue
                # Checks the checksum.
                dataset[start:stop]
                place = dataset.id.get_chunk_info_by_coord((start, 0, 0, 0)).byte_offset
                if place is None or place + (stop - start) * self._size > len(self._maps[index]):
                    raise DamageError("layout", path, "is not fully there: restore it from a copy")
                addresses[first + start : first + stop] = place + np.arange(stop - start) * self._size


def _is_plain(dataset: h5py.Dataset) -> bool:
    """Whether chunks hold whole rows as they are, followed by a checksum."""
    properties = dataset.id.get_create_plist()
    filters = {properties.get_filter(number)[0] for number in range(properties.get_nfilters())}
    return (
        dataset.chunks is not None
        and dataset.chunks[1:] == dataset.shape[1:]
        and filters <= {h5py.h5z.FILTER_FLETCHER32}
    )
