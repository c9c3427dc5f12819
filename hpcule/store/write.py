"""Writing a store: begin, one call a shard from whoever owns it, finish.

A file is prepared, which is work in memory, and then put into the store, which is waiting for the disk.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hpcule.config.errors import StoreError
from hpcule.data.sources.array import Array
from hpcule.store.files import leftover_of, private_directory, sha256_file, to_json, write_atomically, writing
from hpcule.store.hdf5 import build_image
from hpcule.store.image import Image
from hpcule.store.index import INDEX, build_index
from hpcule.store.manifest import SHARED, Manifest, read_manifest, write_manifest
from hpcule.store.vault import MANIFEST, Vault
from hpcule.world.progress import note_saved

RUN = "run"
SHARDS = "shards"
OWN_FILES = (MANIFEST, INDEX, SHARED)
"""Files in a store's folder itself."""

_SHARED_NOTE = f"{RUN}/shared.json"


@dataclass(frozen=True)
class Prepared:
    """A file as it will be, the note that will stand for it, and whether there are labels in it."""

    file: str
    note: str
    labelled: bool
    image: memoryview


@dataclass(frozen=True)
class ShardNote:
    """What the writer of a file notes in run/ once it is whole."""

    run_key: str
    file: str
    labelled: bool
    bytes: int
    sha256: str


def begin(vault: Vault, manifest: Manifest) -> None:
    """Create the folders and write the manifest of a run that has still to be done; also before a resume.

    Call it in one process before any other writes: what killed writers left behind is removed.

    Raises:
        StoreError: the folder cannot be written, or holds another run.
    """
    assert not manifest.complete
    store = vault.path
    for folder in (store, store / SHARDS, store / RUN):
        private_directory(folder)
    if vault.begun and read_manifest(vault).run_key != manifest.run_key:
        raise StoreError(f"{store} holds another run: repeat its settings to go on, or choose another --out")
    _remove_leftovers(store)
    write_manifest(vault, manifest)


def prepare_shard(
    manifest: Manifest,
    index: int,
    labels: npt.NDArray[np.int64] | None,
    *,
    delta: Array | None = None,
    group: npt.NDArray[np.int64] | None = None,
    spectrum: npt.NDArray[np.int64] | None = None,
    image: Image | None = None,
) -> Prepared:
    """Make the file of shard `index`.

    Args:
        manifest: of this run.
        index: number of the shard in `manifest.shards`.
        labels: int64 [n] of the shard's samples, or None.
        delta: [n, C, H, W] in `manifest.delta_dtype` and in levels, for the unit "sample".
        group: int64 [n] in 0..groups-1, for shared perturbations.
        spectrum: int64 [n], the row of each sample in the table of a texture's spectra; where there is a texture.
        image: to make it in; None: in memory of its own.
    """
    entry = manifest.shards[index]
    datasets: dict[str, Array] = {"id": np.arange(entry.first, entry.first + entry.count, dtype=np.int64)}
    if labels is not None:
        _assert_column(labels, entry.count)
        datasets["label"] = labels
    if manifest.unit == "sample":
        assert delta is not None
        assert group is None
        _assert_delta(manifest, delta, entry.count)
        datasets["delta"] = delta
        assert (spectrum is None) == (manifest.texture is None)
        if spectrum is not None and manifest.texture is not None:
            _assert_rows(spectrum, entry.count, manifest.texture.spectra)
            datasets["spectrum"] = spectrum
    else:
        assert group is not None
        assert delta is None
        _assert_rows(group, entry.count, manifest.groups)
        datasets["group"] = group
    return _prepare(manifest, entry.file, _shard_note(index), datasets, image)


def prepare_shared(manifest: Manifest, delta: Array, image: Image | None = None) -> Prepared:
    """Make the file of the perturbations [groups, C, H, W] that samples share, in `manifest.delta_dtype` and levels."""
    assert manifest.shared is not None
    _assert_delta(manifest, delta, manifest.groups)
    return _prepare(manifest, manifest.shared.file, _SHARED_NOTE, {"delta": delta}, image)


def put(vault: Vault, manifest: Manifest, prepared: Prepared) -> None:
    """Write a file, and next to it the note that makes it count as finished.

    Raises:
        StoreError: one of them cannot be written.
    """
    data = vault.sealed(prepared.image, prepared.file)
    with ThreadPoolExecutor(1) as hashing:
        # What the disk takes, and the processor.
        digest = hashing.submit(hashlib.sha256, data)
        write_atomically(vault.path / prepared.file, data)
    note = ShardNote(manifest.run_key, prepared.file, prepared.labelled, len(data), digest.result().hexdigest())
    vault.write(prepared.note, to_json(vars(note)))
    note_saved()


def finished_shards(vault: Vault, manifest: Manifest, shards: Iterable[int] | None = None) -> set[int]:
    """Return which of these shards (None: of all) this run has written whole: the file has the noted size and
    SHA-256."""
    notes = shard_notes(vault, manifest, range(len(manifest.shards)) if shards is None else shards)
    return {
        index for index, note in notes.items() if sha256_file(vault.path / manifest.shards[index].file) == note.sha256
    }


def shard_notes(vault: Vault, manifest: Manifest, shards: Iterable[int]) -> dict[int, ShardNote]:
    """The notes of those of these shards that this run has written and whose files have the noted size, by number."""
    found = {index: _read_note(vault, manifest, manifest.shards[index].file, _shard_note(index)) for index in shards}
    return {index: note for index, note in found.items() if note is not None}


def finish(vault: Vault, manifest: Manifest, notes: Mapping[int, ShardNote] | None = None) -> Manifest:
    """Write index.h5, then the complete manifest, and return it; call it in one process, after all have written.

    An encrypted store has no index: nothing but hpcule could read what it leads to.

    Args:
        vault: the store.
        manifest: of this run.
        notes: `shard_notes` of all shards, where the processes that wrote them have read them; None: they are read.

    Raises:
        StoreError: files are missing; all of them are named.
    """
    store = vault.path
    if notes is None:
        notes = shard_notes(vault, manifest, range(len(manifest.shards)))
    found = [notes.get(index) for index in range(len(manifest.shards))]
    shared = _read_note(vault, manifest, manifest.shared.file, _SHARED_NOTE) if manifest.shared else None
    missing = [entry.file for entry, note in zip(manifest.shards, found, strict=True) if note is None]
    if manifest.shared and shared is None:
        missing.append(manifest.shared.file)
    if missing:
        raise StoreError(f"store {store} is not whole, missing: {', '.join(missing)}; run again with --resume")
    whole = [note for note in found if note is not None]
    labelled = {note.labelled for note in whole}
    if len(labelled) > 1:
        raise StoreError(f"the notes in {store / RUN} contradict each other: remove its shard-*.json, then --resume")
    index = None if vault.key else build_index(manifest, labelled.pop())
    complete = replace(
        manifest,
        index_sha256=hashlib.sha256(index).hexdigest() if index else None,
        shards=tuple(replace(e, bytes=n.bytes, sha256=n.sha256) for e, n in zip(manifest.shards, whole, strict=True)),
        shared=replace(manifest.shared, bytes=shared.bytes, sha256=shared.sha256)
        if manifest.shared and shared
        else None,
        complete=True,
    )
    _remove_leftovers(store)
    if index:
        write_atomically(store / INDEX, index)
    write_manifest(vault, complete)
    return complete


def _shard_note(index: int) -> str:
    return f"{RUN}/shard-{index:05d}.json"


def _assert_column(values: Array, count: int) -> None:
    assert values.shape == (count,), values.shape
    assert values.dtype == np.int64, values.dtype


def _assert_rows(values: Array, count: int, rows: int) -> None:
    _assert_column(values, count)
    assert not np.any((values < 0) | (values >= rows)), (values.min(), values.max())


def _assert_delta(manifest: Manifest, delta: Array, count: int) -> None:
    assert delta.shape == (count, *manifest.sample_shape), delta.shape
    assert delta.dtype == manifest.delta_dtype, delta.dtype
    over = manifest.budget.excess(delta)
    assert over is None, f"position {over[0]}: {manifest.budget.exceeded(over[1])}"


def _prepare(manifest: Manifest, file: str, note: str, datasets: Mapping[str, Array], image: Image | None) -> Prepared:
    data = build_image(datasets, manifest.run_key, manifest.compression, image)
    return Prepared(file, note, "label" in datasets, data)


def _read_note(vault: Vault, manifest: Manifest, file: str, note: str) -> ShardNote | None:
    """Return the side-car of a file of this run that has the noted size, or None."""
    try:
        found = ShardNote(**vault.read_json(note))
        size = (vault.path / file).stat().st_size
    except (OSError, ValueError, TypeError):
        return None
    sound = found.labelled in (True, False)
    return found if sound and (found.run_key, found.file, found.bytes) == (manifest.run_key, file, size) else None


def _remove_leftovers(store: Path) -> None:
    for folder in (store, store / SHARDS, store / RUN):
        for path in folder.iterdir():
            # The store's own folder may have been there before, with hidden files of others in it.
            if (name := leftover_of(path)) is not None and (folder != store or name in OWN_FILES):
                with writing(path):
                    path.unlink(missing_ok=True)
