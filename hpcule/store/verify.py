"""Finding what is wrong with a store, with one message for one damage."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hpcule.config.errors import StoreError, one_line
from hpcule.data.source import Source
from hpcule.data.sources.array import Array
from hpcule.store.files import sha256_file
from hpcule.store.fingerprint import blocks, has_same_samples
from hpcule.store.hdf5 import DamageError
from hpcule.store.index import INDEX, index_error
from hpcule.store.manifest import Manifest, ShardEntry, SharedEntry, read_manifest
from hpcule.store.permissions import exposed_paths
from hpcule.store.read import StoreReader, load_labels, load_shard, load_shared
from hpcule.store.run_files import run_problems
from hpcule.store.vault import MANIFEST, Vault
from hpcule.store.write import OWN_FILES, RUN, SHARDS

_SPECIFIC = ("other run", "ids", "group", "budget")
"""Damages that say more than "the bytes are not those that were written"."""


@dataclass
class Damage:
    """One damage.

    Attributes:
        kind: "manifest", "incomplete", "missing", "size", "checksum", "other run", "unreadable", "layout", "ids",
            "group", "budget", "index", "extra", "settings", "export", "permissions"; with a source also
            "source", "labels" and "grid".
        file: relative to the store.
        message: what is wrong, on one line, without the file's name.
    """

    kind: str
    file: str
    message: str

    def __str__(self) -> str:
        return one_line(f"{self.file}: {self.message}")


def verify(vault: Vault, source: Source | None = None, *, files: Sequence[Damage] | None = None) -> list[Damage]:
    """Check the files of a store; with the source it was made for, also that the two belong together.

    What of run/ is not checked, `hpcule.store.run_files` says.

    The source is compared only with a store that is itself sound.

    Args:
        vault: the store.
        source: the samples.
        files: what `file_damages` has found in the files of the manifest; None: they are read now.

    Raises:
        DataError: a sample of the source cannot be read.
    """
    store = vault.path
    try:
        manifest = read_manifest(vault)
    except StoreError as error:
        return [Damage("manifest", MANIFEST, str(error))]
    if not manifest.complete:
        absent = sum(not (store / entry.file).is_file() for entry in manifest.shards)
        message = f"the run has not ended, {absent} of {len(manifest.shards)} shards are missing: craft with --resume"
        return [Damage("incomplete", MANIFEST, message)]
    problems = [*(file_damages(vault, manifest, manifest.files) if files is None else files)]
    # An encrypted store has no index: nothing but hpcule could read what it leads to.
    if vault.key is None and (reason := index_error(store, manifest)) is not None:
        problems.append(Damage("index", INDEX, reason))
    problems += _extra_files(store, manifest)
    problems += [Damage(*problem) for problem in run_problems(vault, manifest)]
    if source is not None and not problems:
        problems += _source_problems(vault, manifest, source)
    return problems + _loose_permissions(store)


def file_damages(vault: Vault, manifest: Manifest, entries: Iterable[ShardEntry | SharedEntry]) -> list[Damage]:
    """The damages of some files of a complete store: bytes, contents, budget."""
    return [found for entry in entries if (found := _file_problem(vault, manifest, entry)) is not None]


def _file_problem(vault: Vault, manifest: Manifest, entry: ShardEntry | SharedEntry) -> Damage | None:
    path = vault.path / entry.file
    try:
        size = path.stat().st_size
        changed = size != entry.bytes or sha256_file(path) != entry.sha256
    except FileNotFoundError:
        return Damage("missing", entry.file, "missing: restore it from a copy, or craft the store again")
    except OSError as error:
        return Damage("unreadable", entry.file, f"unreadable ({error.strerror})")
    damage = _contents_problem(vault, manifest, entry)
    if damage is not None and (damage.kind in _SPECIFIC or not changed):
        return damage
    if size != entry.bytes:
        cut = "truncated" if entry.bytes is not None and size < entry.bytes else "too long"
        return Damage("size", entry.file, f"{cut}: {size} bytes, {entry.bytes} were written; restore it from a copy")
    if changed:
        return Damage("checksum", entry.file, "SHA-256 differs: bytes have changed since it was written")
    return None


def _contents_problem(vault: Vault, manifest: Manifest, entry: ShardEntry | SharedEntry) -> Damage | None:
    try:
        if isinstance(entry, SharedEntry):
            return _over_budget(manifest, entry.file, load_shared(vault, manifest), 0, "group")
        delta = load_shard(vault, manifest, entry).delta
    except DamageError as damage:
        return Damage(damage.kind, entry.file, damage.message)
    return _over_budget(manifest, entry.file, delta, entry.first, "sample") if delta is not None else None


def _over_budget(manifest: Manifest, file: str, delta: Array, first: int, noun: str) -> Damage | None:
    over = manifest.budget.excess(delta)
    if over is None:
        return None
    position, size = over
    message = f"budget exceeded: {noun} {first + position} is {manifest.budget.exceeded(size)}"
    return Damage("budget", file, message)


def _extra_files(store: Path, manifest: Manifest) -> Iterator[Damage]:
    known = {*(entry.file for entry in manifest.shards), SHARDS, RUN, *OWN_FILES}
    for path in (*sorted(store.glob("*")), *sorted((store / SHARDS).glob("*"))):
        if (name := path.relative_to(store).as_posix()) not in known:
            yield Damage("extra", name, "not in the manifest: move it elsewhere")


def _loose_permissions(store: Path) -> list[Damage]:
    loose = exposed_paths(store)
    if not loose:
        return []
    file = str(loose[0].relative_to(store))
    others = f" and {len(loose) - 1} more" if len(loose) > 1 else ""
    mode = stat.S_IMODE(loose[0].stat().st_mode)
    return [Damage("permissions", file, f"mode {mode:04o}{others}, others may read it: chmod -R go= {store}")]


def _source_problems(vault: Vault, manifest: Manifest, source: Source) -> Iterator[Damage]:
    """Yield the first way in which the source is not the one that the store was made for."""
    facts, made_for = (len(source), source.shape, source.levels), (manifest.n, manifest.sample_shape, manifest.levels)
    if facts != made_for:
        yield Damage("source", MANIFEST, f"made for (N, shape, levels) {made_for}, {source.name} has {facts}")
        return
    with StoreReader(vault, cache_bytes=0) as reader:
        if manifest.labelled and (problem := _label_problem(reader, source)) is not None:
            yield problem
        elif not has_same_samples(manifest, source):
            yield Damage("source", MANIFEST, f"made for other samples than those of {source.name}: fingerprint differs")
        elif manifest.unit == "sample" and (problem := _grid_problem(reader, source)) is not None:
            yield problem


def _label_problem(reader: StoreReader, source: Source) -> Damage | None:
    for entry in reader.manifest.shards:
        stored = load_labels(reader.vault, reader.manifest, entry)
        if (stored is None) != (source.labels is None):
            has = "no labels" if stored is None else "labels"
            return Damage("labels", entry.file, f"has {has}, unlike {source.name}")
        if stored is not None and source.labels is not None:
            given = source.classes(slice(entry.first, entry.first + entry.count))
            if (wrong := np.flatnonzero(stored != given)).size:
                row = int(wrong[0])
                message = f"sample {entry.first + row} has label {stored[row]}, in {source.name} it is {given[row]}"
                return Damage("labels", entry.file, message)
    return None


def _grid_problem(reader: StoreReader, source: Source) -> Damage | None:
    """A perturbation by sample is stored after the clip, so the sum must stay on the grid without one."""
    for entry in reader.manifest.shards:
        for ids, clean in blocks(source, entry.first, entry.count):
            total = np.add(clean, reader.delta(ids), dtype=np.int32).reshape(len(ids), -1)
            low, high = total.min(axis=1), total.max(axis=1)
            if (wrong := np.flatnonzero((low < 0) | (high > source.levels))).size:
                row = int(wrong[0])
                value = low[row] if low[row] < 0 else high[row]
                message = f"sample {ids[row]}: clean + delta reaches {value}, off the grid 0..{source.levels}"
                return Damage("grid", entry.file, message)
    return None
