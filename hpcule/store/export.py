"""Publishing: protected samples and nothing that leads back to the clean ones."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from hpcule.config.errors import StoreError, UsageError
from hpcule.data.source import Ids, Native, Samples, Source
from hpcule.store.carry import carries, published_native
from hpcule.store.collection import Compare, Record, write_collection
from hpcule.store.files import storage_error
from hpcule.store.fingerprint import require_same_samples
from hpcule.store.formats import (
    Part,
    folder_error,
    safe_name,
    wav_error,
    write_folder,
    write_hdf5,
    write_npz,
    write_wav,
)
from hpcule.store.read import StoreReader
from hpcule.store.seal import Key

_ENDINGS = {"npz": ".npz", "hdf5": ".h5"}
_DEFAULT_FORMAT = {"folder": "folder", "npz": "npz", "idx": "npz", "hdf5": "hdf5", "wav": "wav"}
_WRITERS: dict[str, Callable[[Path, Sequence[Part]], None]] = {"npz": write_npz, "hdf5": write_hdf5}
_FOLDER_WRITERS: dict[str, Callable[[Path, Sequence[Part]], None]] = {"folder": write_folder, "wav": write_wav}
_ERRORS: dict[str, Callable[[Source], str | None]] = {"folder": folder_error, "wav": wav_error}


@dataclass(frozen=True)
class ExportSummary:
    """What was published.

    Attributes:
        path: the folder or file.
        format: "folder", "wav", "npz" or "hdf5".
        protected: number of protected samples.
        copied: number of samples by split that were copied unchanged.
        largest: the largest change of a sample, in levels and in the store's norm.
        bytes: size of all files.
        records: what became of each file, in the order of the ids, where samples are files in the copy.
    """

    path: Path
    format: str
    protected: int
    copied: dict[str, int]
    largest: float
    bytes: int
    records: list[Record]


def export(
    store: Path,
    source: Source,
    out: Path,
    *,
    format: str | None = None,
    other_splits: Mapping[str, Source] | None = None,
    compare: Compare = lambda clean, published: {},
    key: Key | None = None,
) -> ExportSummary:
    """Write the protected samples of a store, in the format of the source they were made for or in another.

    As a folder, images that the source resizes come back at their own sizes.

    Args:
        store: a complete store.
        source: the samples it was made for.
        out: a folder that is absent or empty; for "npz" and "hdf5" it may be the file itself (ending .npz or .h5).
        format: "folder", "wav" (a folder too), "npz" or "hdf5"; by default what `out` ends in, else what the source
            was read from.
        other_splits: sources by split, copied unchanged beside the protected one.
        compare: numbers for the record of an image at its own size.
        key: of an encrypted store.

    Raises:
        StoreError: the store is damaged, the source is another one, `out` holds something, the disk is full.
        UsageError: the format is unknown or cannot hold the samples.
        DataError: a sample cannot be read.
    """
    others = dict(other_splits or {})
    with StoreReader(store, cache_bytes=0, key=key) as reader:
        kind = check_out(out, format, source, others)
        require_same_samples(reader.manifest, source)
        publisher = _Publisher(reader)
        name, native = f"{safe_name(source.name)}-protected", carries(reader, source)
        written, records = write_copy(out, kind, source, others, publisher, name, native=native, compare=compare)
    copied = {name: len(other) for name, other in others.items()}
    return ExportSummary(out.absolute(), kind, len(source), copied, publisher.largest, written, records)


class Publisher(Protocol):
    """What becomes of the samples of one split on their way into a copy."""

    def publish(self, ids: Ids, clean: Samples) -> Samples:
        """Change samples [n, C, H, W]."""

    def publish_native(self, sample: int, clean: Native) -> Native:
        """Change a sample at its own size."""


def check_out(out: Path, format: str | None, source: Source, others: Mapping[str, Source]) -> str:
    """The format of a copy, before anything is computed.

    Raises:
        StoreError: `out` holds something.
        UsageError: the format is unknown or cannot hold the samples.
    """
    kind = _choose_format(out.absolute(), format, source, others)
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise StoreError(f"{out.absolute()} is not empty: name a new folder or file for the samples")
    return kind


def write_copy(
    out: Path,
    kind: str,
    source: Source,
    others: Mapping[str, Source],
    publisher: Publisher,
    name: str,
    *,
    native: bool,
    compare: Compare = lambda clean, published: {},
) -> tuple[int, list[Record]]:
    """Write a split as `publisher` changes it, and the others unchanged beside it.

    Args:
        out: see `export`.
        kind: the format, from `check_out`.
        source: the split that is changed.
        others: see `export`.
        publisher: what becomes of its samples.
        name: of an npz or HDF5 file, without the ending, where `out` does not give it.
        native: whether images in folders are written at their own sizes.
        compare: see `export`.

    Returns:
        The bytes written, and what became of each file.

    Raises:
        StoreError: a file's name leads out of the folder, or the disk is full.
        DataError: a sample cannot be read.
    """
    out = out.absolute()
    split = "" if source.split == "all" and not others else source.split
    assert split not in others, split
    sources = {split: source, **others}
    size = sum(len(one) * int(np.prod(one.shape)) * one.dtype.itemsize for one in sources.values())
    records: list[Record] = []

    def write(folder: Path) -> None:
        for split, one in sources.items():
            publish = publisher.publish_native if one is source else None
            records.extend(write_collection(folder, split, one, publish, compare))

    if kind == "folder" and native:
        return _write_whole(out, lambda partial: _in_folder(partial, write), size), records
    parts = [Part(split, one, publisher.publish if one is source else _unchanged) for split, one in sources.items()]
    written = _write_whole(out, lambda partial: _write_parts(partial, out, kind, parts, name), size)
    for part in parts:
        for sample, file in enumerate(part.files):
            given = part.source.file_name(sample) or str(sample)
            records.append(Record(part.split, given, file, part.source is source, "", {}))
    return written, records


class _Publisher:
    """Publishes blocks of samples and checks each sample's budget on what is published."""

    def __init__(self, reader: StoreReader) -> None:
        self._reader = reader
        self.largest = 0.0

    def publish(self, ids: Ids, clean: Samples) -> Samples:
        published = self._reader.published(ids, clean)
        manifest = self._reader.manifest
        sizes = manifest.budget.spent(np.subtract(published, clean, dtype=np.int32))
        worst = int(sizes.argmax())
        if sizes[worst] > manifest.epsilon:
            raise StoreError(
                f"store {self._reader.path}: sample {ids[worst]} is {manifest.budget.exceeded(sizes[worst])}; "
                "`hpcule verify` says more"
            )
        self.largest = max(self.largest, float(sizes[worst]))
        return published

    def publish_native(self, sample: int, clean: Native) -> Native:
        published = published_native(self._reader, sample, clean)
        change = np.subtract(published.pixels, clean.pixels, dtype=np.int32)
        self.largest = max(self.largest, float(np.abs(change).max()))
        return published


def _unchanged(ids: Ids, clean: Samples) -> Samples:
    return clean


def _choose_format(out: Path, format: str | None, source: Source, others: Mapping[str, Source]) -> str:
    from_ending = next((kind for kind, ending in _ENDINGS.items() if out.suffix == ending), None)
    chosen = format or from_ending or _DEFAULT_FORMAT.get(source.kind, "npz")
    if chosen not in _DEFAULT_FORMAT.values():
        raise UsageError(f"format {chosen} is unknown: folder, wav, npz or hdf5")
    if from_ending is not None and chosen != from_ending:
        raise UsageError(f"{out.name} ends like {from_ending}, but the format is {chosen}: change one of them")
    if chosen in _ERRORS:
        for one in (source, *others.values()):
            if (reason := _ERRORS[chosen](one)) is not None:
                raise UsageError(f"{one.name}: {reason}: choose {_others(one)}")
    return chosen


def _others(source: Source) -> str:
    own = [kind for kind, error in _ERRORS.items() if error(source) is None]
    return f"the format {' or '.join([*own, *_WRITERS])}"


def _in_folder(folder: Path, write: Callable[[Path], None]) -> None:
    folder.mkdir()
    write(folder)


def _write_parts(partial: Path, out: Path, kind: str, parts: Sequence[Part], name: str) -> None:
    """Samples of one size, in a folder or as the file that `out` names."""
    if kind in _FOLDER_WRITERS:
        _in_folder(partial, lambda folder: _FOLDER_WRITERS[kind](folder, parts))
    elif out.suffix == _ENDINGS[kind]:
        _WRITERS[kind](partial, parts)
    else:
        _in_folder(partial, lambda folder: _WRITERS[kind](folder / f"{name}{_ENDINGS[kind]}", parts))


def _write_whole(out: Path, write: Callable[[Path], None], size: int) -> int:
    """Write beside `out` and rename, so that nothing half-written has its name; return the bytes written."""
    partial = out.parent / f".{out.name}.partial-{os.getpid()}"
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write(partial)
        written = sum(path.stat().st_size for path in (partial, *partial.rglob("*")) if path.is_file())
        os.sync()  # one call for what may be a million files
        partial.replace(out)
    except OSError as error:
        raise storage_error(error, out, size, "run again") from error
    finally:
        _remove(partial)
    return written


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
