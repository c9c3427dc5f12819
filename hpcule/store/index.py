"""index.h5: one virtual dataset over all shards in id order, for other people's tools.

HDF5 answers with the fill value, and no error, where a shard is missing; hpcule itself reads through the manifest.
The fill value is the smallest integer of the dtype, which no id, label, group or perturbation can have.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from hpcule.config.errors import first_line
from hpcule.data.sources.hdf5_isolated import require_harmless
from hpcule.store.files import sha256_file
from hpcule.store.hdf5 import DATASETS, file_image
from hpcule.store.manifest import Manifest

INDEX = "index.h5"


def build_index(manifest: Manifest, labelled: bool) -> bytes:
    """Return the bytes of index.h5, with shard paths relative to the store."""
    with h5py.File("index", "w", driver="core", backing_store=False) as file:
        file.attrs["run_key"] = np.bytes_(manifest.run_key)
        for name, (shape, dtype) in _datasets(manifest, labelled).items():
            _create_virtual(file, manifest, name, shape, dtype)
        return file_image(file)


def index_error(store: Path, manifest: Manifest) -> str | None:
    """Say why index.h5 would mislead its reader, or return None."""
    path = store / INDEX
    if not path.is_file():
        return "missing: other tools cannot read the store as one file"
    try:
        if manifest.index_sha256 not in (None, sha256_file(path)):
            return "SHA-256 differs: bytes have changed since it was written"
        require_harmless(path, DATASETS)
        with h5py.File(path, "r", locking=False) as file:
            expected = _datasets(manifest, "label" in file)
            if set(file) != set(expected):
                # h5py gives a name that is no text as bytes, which have no order among texts.
                return f"holds {sorted(map(str, file))}, not {sorted(expected)}"
            wrong = [name for name in file if _mapping(file[name]) != _planned(manifest, name)]
    except (OSError, RuntimeError, LookupError, ValueError, AttributeError) as error:
        return f"unreadable ({first_line(error)})"
    return f"does not map {', '.join(wrong)} to the shards of the manifest" if wrong else None


def _datasets(manifest: Manifest, labelled: bool) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """Shape of one row and dtype by name."""
    integer = np.dtype(np.int64)
    facts: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {"id": ((), integer)}
    if labelled:
        facts["label"] = ((), integer)
    if manifest.unit == "sample":
        return facts | {"delta": (manifest.sample_shape, manifest.delta_dtype)}
    return facts | {"group": ((), integer)}


def _create_virtual(
    file: h5py.File, manifest: Manifest, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> None:
    """Map the rows of one dataset, through h5py's lower level: the upper one stores the time."""
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_layout(h5py.h5d.VIRTUAL)
    properties.set_obj_track_times(False)
    properties.set_fill_value(np.array([np.iinfo(dtype).min], dtype))
    for entry in manifest.shards:
        rows = h5py.h5s.create_simple((manifest.n, *shape))
        rows.select_hyperslab((entry.first, *(0 for _ in shape)), (entry.count, *shape))
        shard = h5py.h5s.create_simple((entry.count, *shape))
        properties.set_virtual(rows, entry.file.encode(), name.encode(), shard)
    space = h5py.h5s.create_simple((manifest.n, *shape))
    h5py.h5d.create(file.id, name.encode(), h5py.h5t.py_create(dtype), space, properties)


def _planned(manifest: Manifest, name: str) -> list[tuple[str, str, int, int]]:
    return [(entry.file, name, entry.first, entry.first + entry.count - 1) for entry in manifest.shards]


def _mapping(dataset: h5py.Dataset) -> list[tuple[str, str, int, int]]:
    """(file, dataset, first row, last row) of each source."""
    return [
        (source.file_name, source.dset_name, int(low[0]), int(high[0]))
        for source in dataset.virtual_sources()
        for low, high in [source.vspace.get_select_bounds()]
    ]
