"""HDF5 images built in memory, and the checks without which no HDF5 file is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from hpcule.config.errors import StoreError, first_line, one_line
from hpcule.data.sources.array import MOST_COMPRESSED, Array
from hpcule.data.sources.hdf5_chunks import FILTERS, DecodedChunks, filters_of
from hpcule.data.sources.hdf5_isolated import require_harmless
from hpcule.store.image import Image
from hpcule.store.seal import SealedFile
from hpcule.store.vault import Vault

CHUNK_BYTES = 256 << 10
"""Chunks are whole samples, as many as fit; one where a sample is larger."""

DATASETS = ("id", "label", "delta", "group", "spectrum")
"""What the datasets of a store's files are called."""

_CHUNK_CACHE_BYTES = 1 << 20
"""A reader may have some hundred files open, each with a cache of its own; HDF5 2.0 would take 8 MiB for each."""


class DamageError(StoreError):
    """A file of a store is not what the manifest says.

    Attributes:
        kind: "missing", "unreadable", "checksum", "other run", "layout", "ids", "labels" or "group".
        path: the file.
        message: what is wrong with it, without its name.
    """

    def __init__(self, kind: str, path: Path, message: str) -> None:
        super().__init__(kind, path, message)
        self.kind, self.path, self.message = kind, path, message

    def __str__(self) -> str:
        return one_line(f"{self.path}: {self.message}")


def build_image(
    datasets: Mapping[str, Array], run_key: str, compression: str | None, image: Image | None = None
) -> memoryview:
    """Return the bytes of an HDF5 file; they depend on the arguments alone.

    Args:
        datasets: arrays [n, ...] by name; each is stored in chunks of whole rows with Fletcher-32 checksums.
        run_key: identifies the run; stored as an attribute of the root.
        compression: None, "gzip" or "lzf", for arrays of more than one dimension.
        image: to write it in, again and again.
    """
    # HDF5's own files in memory would be copied once more to get at their bytes.
    image = image or Image()
    image.reset()
    with h5py.File(image, "w") as file:
        file.attrs["run_key"] = np.bytes_(run_key)
        for name, array in datasets.items():
            rows = min(len(array), max(1, CHUNK_BYTES // (array.nbytes // len(array))))
            file.create_dataset(
                name,
                data=array,
                chunks=(rows, *array.shape[1:]),
                fletcher32=True,
                track_times=False,
                compression=compression if array.ndim > 1 else None,
                compression_opts=1 if compression == "gzip" and array.ndim > 1 else None,
            )
    return image.view()


def file_image(file: h5py.File) -> bytes:
    """Return the bytes that an HDF5 file in memory would have on disk."""
    file.flush()
    image: bytes = file.id.get_file_image()
    return image


@contextmanager
def as_damage(path: Path) -> Iterator[None]:
    """Turn whatever HDF5 raises into a DamageError that names the file."""
    try:
        yield
    except FileNotFoundError as error:
        raise DamageError("missing", path, "missing: restore it from a copy, or craft the store again") from error
    except (OSError, RuntimeError, LookupError, ValueError, TypeError) as error:
        raise DamageError("unreadable", path, f"unreadable ({first_line(error)}): restore it from a copy") from error


def open_file(vault: Vault, name: str, run_key: str) -> h5py.File:
    """Open a store's file of the run `run_key` for reading, without locks.

    Raises:
        DamageError: missing, not HDF5, or of another run.
    """
    path = vault.path / name
    with as_damage(path):
        if vault.key is None:  # with the key, only its owner can have written the file
            require_harmless(path, DATASETS)
        opened = path if vault.key is None else SealedFile(path, name, vault.key)
        file = h5py.File(opened, "r", locking=False, rdcc_nbytes=_CHUNK_CACHE_BYTES)
    if (found := stored_run_key(file)) != run_key:
        file.close()
        message = f"belongs to another run ({found or 'no run key'}, not {run_key}): put the right file in its place"
        raise DamageError("other run", path, message)
    return file


def stored_run_key(file: h5py.File) -> str | None:
    """Return the run key that the file was written with, or None."""
    with as_damage(Path(file.filename)):
        value = file.attrs.get("run_key")
    return value.decode("ascii", "replace") if isinstance(value, bytes) else None


def dataset(file: h5py.File, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> h5py.Dataset:
    """Return a dataset that has this very shape and dtype and whose data lies inside the file.

    Raises:
        DamageError: it is absent, of another layout, a link or a mapping to another file, or not fully there.
    """
    path = Path(file.filename)
    with as_damage(path):
        link = file.get(name, getlink=True)
        found = file[name] if isinstance(link, h5py.HardLink) else None
        if not isinstance(found, h5py.Dataset) or found.is_virtual or found.external:
            raise DamageError("layout", path, f"dataset {name} is absent or not stored in the file itself")
        if found.shape != shape or found.dtype != dtype:
            raise DamageError(
                "layout", path, f"dataset {name} is {found.dtype} {found.shape}, where {dtype} {shape} belongs"
            )
        most = found.id.get_storage_size() * (MOST_COMPRESSED if found.compression else 1)
        if prod(shape) * dtype.itemsize > most:
            raise DamageError("layout", path, f"dataset {name} is not fully there")
        if {code for code, *_ in filters_of(found)} - FILTERS:
            raise DamageError("layout", path, f"dataset {name} is packed with a filter that no store has")
        DecodedChunks(found).require_all()
    return found
