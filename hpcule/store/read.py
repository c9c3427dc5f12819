"""Reading a store through its manifest."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Self

import h5py
import numpy as np
import numpy.typing as npt

from hpcule.config.errors import StoreError
from hpcule.data.source import Ids
from hpcule.data.sources.array import Array
from hpcule.store.files import sha256_file
from hpcule.store.grey import is_grey, mean_of_channels
from hpcule.store.hdf5 import DamageError, as_damage, dataset, open_file
from hpcule.store.manifest import Manifest, ShardEntry, read_manifest
from hpcule.store.rows import MappedRows
from hpcule.store.vault import Vault

_OPEN_FILES = 256
"""A process may often open 1024 files; a store may have more shards than that."""

_ROWS_HASHED = 256
"""Perturbations that are in memory at a time while they are hashed."""

_INTEGER = np.dtype(np.int64)


@dataclass(frozen=True)
class ShardContents:
    """One shard: the ids from `first` on, and per sample a label (or None) and a delta, or a group."""

    first: int
    ids: Ids
    labels: npt.NDArray[np.int64] | None
    delta: Array | None
    group: npt.NDArray[np.int64] | None


def load_shard(vault: Vault, manifest: Manifest, entry: ShardEntry) -> ShardContents:
    """Read a shard whole and check its run, layout, ids and groups.

    Raises:
        DamageError: it is not what the manifest says.
    """
    path = vault.path / entry.file
    with open_file(vault, entry.file, manifest.run_key) as file, as_damage(path):
        ids = _checked_ids(file, entry)
        labels = _labels(file, entry)
        if manifest.unit == "sample":
            if manifest.texture is not None:
                _checked_rows(file, "spectrum", manifest.texture.spectra, entry)
            shape = (entry.count, *manifest.sample_shape)
            return ShardContents(
                entry.first, ids, labels, dataset(file, "delta", shape, manifest.delta_dtype)[()], None
            )
        return ShardContents(entry.first, ids, labels, None, _checked_rows(file, "group", manifest.groups, entry))


def load_labels(vault: Vault, manifest: Manifest, entry: ShardEntry) -> npt.NDArray[np.int64] | None:
    """Read the labels int64 [n] of a shard, or None where it has none.

    Raises:
        DamageError: it is not what the manifest says.
    """
    path = vault.path / entry.file
    with open_file(vault, entry.file, manifest.run_key) as file, as_damage(path):
        return _labels(file, entry)


def load_spectra(vault: Vault, manifest: Manifest, entry: ShardEntry) -> npt.NDArray[np.int64]:
    """Read the row int64 [n] of each sample of a shard in the table of its texture's spectra.

    Raises:
        DamageError: it is not what the manifest says.
    """
    assert manifest.texture is not None
    path = vault.path / entry.file
    with open_file(vault, entry.file, manifest.run_key) as file, as_damage(path):
        return _checked_rows(file, "spectrum", manifest.texture.spectra, entry)


def load_shared(vault: Vault, manifest: Manifest) -> Array:
    """Read the perturbations [groups, C, H, W] that samples share.

    Raises:
        DamageError: shared.h5 is not what the manifest says.
    """
    assert manifest.shared is not None
    path = vault.path / manifest.shared.file
    with open_file(vault, manifest.shared.file, manifest.run_key) as file, as_damage(path):
        found: Array = dataset(file, "delta", (manifest.groups, *manifest.sample_shape), manifest.delta_dtype)[()]
    return found


def require_unaltered(vault: Vault, manifest: Manifest) -> None:
    """Check that the files of a complete store are byte for byte those that the manifest names.

    Raises:
        StoreError: one is missing, cannot be read, or was changed.
    """
    for entry in manifest.files:
        path = vault.path / entry.file
        with as_damage(path):
            changed = path.stat().st_size != entry.bytes or sha256_file(path) != entry.sha256
        if changed:
            message = "SHA-256 differs: bytes have changed since it was written; restore it from a copy"
            raise DamageError("checksum", path, message)


class StoreReader:
    """Perturbations and published samples of a complete store, by id.

    Rows are copied from the mapped files. Shards that are compressed or encrypted are kept in memory until
    `cache_bytes` are used, first come first served; nothing is ever evicted, so that random access to a store of any
    size cannot make the cache churn. Others of them are read by runs of consecutive ids.

    Raises:
        StoreError: there is no store, it is not complete, shards are missing, or the key is wrong.
    """

    def __init__(self, vault: Vault, *, cache_bytes: int = 1 << 30) -> None:
        self.vault = vault
        self.path = path = vault.path
        self.manifest = read_manifest(vault)
        if not self.manifest.complete:
            raise StoreError(
                f"store {path} is not complete: run `hpcule craft {self.manifest.method}` with the same settings, "
                f"--out {path} and --resume"
            )
        if missing := [entry.file for entry in self.manifest.files if not (path / entry.file).is_file()]:
            raise StoreError(
                f"store {path} lacks {', '.join(missing)}: restore them from a copy, or craft the store again"
            )
        self._firsts = np.array([entry.first for entry in self.manifest.shards])
        self._free_bytes = cache_bytes
        self._resident: dict[int, Array] = {}
        self._open: dict[int, h5py.File] = {}
        self._datasets: dict[int, h5py.Dataset] = {}
        self._mapped = MappedRows(path, self.manifest, self._delta_dataset)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all files; the reader opens them again when it needs them."""
        self._mapped.close()
        self._datasets.clear()
        while self._open:
            self._open.popitem()[1].close()

    def shard(self, index: int) -> ShardContents:
        """Read shard `index` whole; it is not kept.

        Raises:
            StoreError: it is not what the manifest says.
        """
        return load_shard(self.vault, self.manifest, self.manifest.shards[index])

    def delta(self, ids: Ids) -> Array:
        """Return the perturbations [n, C, H, W] of any ids in any order, in levels and in `manifest.delta_dtype`.

        Raises:
            StoreError: a shard is not what the manifest says.
        """
        assert not len(ids) or (ids.min() >= 0 and ids.max() < self.manifest.n), (ids.min(), ids.max())
        if (groups := self.group(ids)) is not None:
            return self.shared_delta[groups]
        owners = np.searchsorted(self._firsts, ids, side="right") - 1
        if len(ids) and not self._resident:
            self._delta_dataset(int(owners[0]))  # finds a shape that only the manifest claims before memory is taken
        out = np.empty((len(ids), *self.manifest.sample_shape), self.manifest.delta_dtype)
        if self.manifest.compression is None and self.vault.key is None:
            self._mapped.copy(ids, out)
            return out
        for index in np.unique(owners).tolist():
            where = np.flatnonzero(owners == index)
            rows = ids[where] - self._firsts[index]
            resident = self._keep(index)
            out[where] = resident[rows] if resident is not None else self._read_rows(index, rows)
        return out

    def group(self, ids: Ids) -> npt.NDArray[np.int64] | None:
        """Return the group int64 [n] of each id, or None where perturbations are not shared."""
        return self._groups[ids] if self.manifest.unit != "sample" else None

    def delta_on(self, ids: Ids, samples: Array) -> Array:
        """Return the perturbations [n, C, H, W] as they are added to samples: to grey ones, in levels, a grey one.

        Args:
            ids: int64 [n].
            samples: [n, C, H, W], clean or published; what is added to grey ones leaves them grey.
        """
        delta = self.delta(ids)
        if delta.shape[1] > 1 and (grey := is_grey(samples)).any():
            delta[grey] = self.manifest.budget.rounded(mean_of_channels(delta[grey]))
        return delta

    def published(self, ids: Ids, clean: Array) -> Array:
        """Return clip(clean + delta) on the grid; see `delta_on` for grey samples.

        Args:
            ids: int64 [n].
            clean: uint8 or uint16 [n, C, H, W], the source's samples with these ids.
        """
        assert clean.shape == (len(ids), *self.manifest.sample_shape), clean.shape
        assert clean.dtype in (np.uint8, np.uint16), clean.dtype
        total = np.add(clean, self.delta_on(ids, clean), dtype=np.int32)
        return np.clip(total, 0, self.manifest.levels, out=total).astype(clean.dtype)

    @cached_property
    def shared_delta(self) -> Array:
        """The perturbations [groups, C, H, W] that samples share; without the clip."""
        return load_shared(self.vault, self.manifest)

    def deltas_sha256(self) -> str:
        """The SHA-256 of the perturbations by id, as int32, of those that samples share with the group of each sample.

        It depends neither on shards nor on the type in which they are stored.
        """
        found = hashlib.sha256()
        if self.manifest.unit != "sample":
            found.update(self.shared_delta.astype("<i4").tobytes())
            found.update(self._groups.astype("<i8").tobytes())
            return found.hexdigest()
        for entry in self.manifest.shards:
            for first in range(entry.first, entry.first + entry.count, _ROWS_HASHED):
                last = min(first + _ROWS_HASHED, entry.first + entry.count)
                found.update(self.delta(np.arange(first, last)).astype("<i4").tobytes())
        return found.hexdigest()

    def spectrum(self, sample: int) -> int:
        """Return the row of a sample in the table of spectra; only of a store with a texture."""
        return int(self._spectra[sample])

    @cached_property
    def _spectra(self) -> npt.NDArray[np.int64]:
        return np.concatenate([load_spectra(self.vault, self.manifest, entry) for entry in self.manifest.shards])

    @cached_property
    def _groups(self) -> npt.NDArray[np.int64]:
        found = [self.shard(index).group for index in range(len(self.manifest.shards))]
        return np.concatenate([group for group in found if group is not None])

    def _keep(self, index: int) -> Array | None:
        """Return the deltas of a shard that is in memory or still fits there."""
        if index not in self._resident:
            size = self.manifest.shards[index].count * prod(self.manifest.sample_shape)
            if (need := size * self.manifest.delta_dtype.itemsize) > self._free_bytes:
                return None
            self._free_bytes -= need
            delta = self.shard(index).delta
            assert delta is not None
            self._resident[index] = delta
        return self._resident[index]

    def _read_rows(self, index: int, rows: Ids) -> Array:
        """Read rows of a shard by runs of consecutive rows: far faster in HDF5 than a list of rows."""
        source = self._delta_dataset(index)
        order = np.argsort(rows, kind="stable")
        out = np.empty((len(rows), *self.manifest.sample_shape), self.manifest.delta_dtype)
        with as_damage(self.path / self.manifest.shards[index].file):
            for run in np.split(order, np.flatnonzero(np.diff(rows[order]) != 1) + 1):
                out[run] = source[int(rows[run[0]]) : int(rows[run[-1]]) + 1]
        return out

    def _delta_dataset(self, index: int) -> h5py.Dataset:
        """Return the open dataset of a shard; its chunk cache lives as long as this handle."""
        if index not in self._datasets:
            if len(self._open) >= _OPEN_FILES:
                oldest = next(iter(self._open))
                self._datasets.pop(oldest, None)
                self._open.pop(oldest).close()
            entry = self.manifest.shards[index]
            file = open_file(self.vault, entry.file, self.manifest.run_key)
            self._open[index] = file
            with as_damage(self.path / entry.file):
                _checked_ids(file, entry)
            shape = (entry.count, *self.manifest.sample_shape)
            self._datasets[index] = dataset(file, "delta", shape, self.manifest.delta_dtype)
        return self._datasets[index]


def _labels(file: h5py.File, entry: ShardEntry) -> npt.NDArray[np.int64] | None:
    return dataset(file, "label", (entry.count,), _INTEGER)[()] if "label" in file else None


def _checked_ids(file: h5py.File, entry: ShardEntry) -> Ids:
    ids: Ids = dataset(file, "id", (entry.count,), _INTEGER)[()]
    wrong = np.flatnonzero(ids != np.arange(entry.first, entry.first + entry.count))
    if wrong.size:
        row = int(wrong[0])
        message = f"row {row} has id {ids[row]}, where {entry.first + row} belongs: each id must be there exactly once"
        raise DamageError("ids", Path(file.filename), message)
    return ids


def _checked_rows(file: h5py.File, name: str, rows: int, entry: ShardEntry) -> npt.NDArray[np.int64]:
    """What stands in the dataset `group` or `spectrum`: for each sample a number below `rows`."""
    found: npt.NDArray[np.int64] = dataset(file, name, (entry.count,), _INTEGER)[()]
    wrong = np.flatnonzero((found < 0) | (found >= rows))
    if wrong.size:
        row = int(wrong[0])
        message = f"sample {entry.first + row} is in {name} {found[row]}, outside 0..{rows - 1}"
        raise DamageError("group", Path(file.filename), message)
    return found
