"""Valid files of stores, each of which is changed, and what reads them whole."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fuzz_sources import LABELS, Make, Parser

from hpcule.config.errors import HpculeError
from hpcule.config.tree import Tree, dump_yaml
from hpcule.craft.cache import Cache
from hpcule.publish.collection import Record
from hpcule.publish.dates import SHIFTS, DateShifts, read_shifts
from hpcule.publish.hashes import FileHash
from hpcule.publish.records import RECORD, find_export, keep_records, last_export, read_records
from hpcule.store.checkpoint import CheckpointPart, WrittenFile, commit, latest, make_folder, save
from hpcule.store.files import sha256_file
from hpcule.store.keys import make_key, read_key
from hpcule.store.lock import StoreLock
from hpcule.store.manifest import Manifest, SharedEntry, SourceFacts, plan_shards, read_manifest, write_manifest
from hpcule.store.read import StoreReader
from hpcule.store.run_files import FACTS, HASHES, RECORDS
from hpcule.store.seal import KEY_BYTES, Key
from hpcule.store.vault import Vault
from hpcule.store.verify import verify
from hpcule.store.write import begin, finish, finished_shards, prepare_shard, prepare_shared, put

KEY = Key(bytes(KEY_BYTES))
CONFIG: Tree = {"preset": "smoke", "method": {"epsilon": 8.0}, "skip_unreadable": False}
COPY = [FileHash("train/a.png", 3, "0" * 64), FileHash("train/-b.png", 3, "1" * 64)]


def make_store(file: str, *, finished: bool = True, shared: bool = False, key: Key | None = None) -> Make:
    """A store of which one file is changed."""

    def make(folder: Path) -> Path:
        vault, manifest = Vault(folder / "store", key), planned(shared)
        begin(vault, manifest)
        vault.write("run/config.yaml", dump_yaml(CONFIG).encode())
        for index, entry in enumerate(manifest.shards):
            delta = None if shared else np.full((entry.count, *manifest.sample_shape), 3, np.int8)
            group = np.arange(entry.count) % manifest.groups if shared else None
            labels = LABELS[: entry.count]
            put(vault, manifest, prepare_shard(manifest, index, labels, delta=delta, group=group))
        if shared:
            put(vault, manifest, prepare_shared(manifest, np.full((2, *manifest.sample_shape), 3, np.int8)))
        if finished:
            finish(vault, manifest)
        return vault.path / file

    return make


def planned(shared: bool = False) -> Manifest:
    return Manifest(
        hpcule="0", method="pil", config=CONFIG, seed=1, source=SourceFacts("a", "npz", "all", "0"), epsilon=8.0,
        norm="linf", unit="class" if shared else "sample", groups=2 if shared else 0, n=12, sample_shape=(3, 8, 8),
        levels=255, applied_at="native", working_size=None, reduced=False, compression="gzip",
        shards=plan_shards(12, [(0, 6), (6, 6)]), shared=SharedEntry("shared.h5", 2) if shared else None,
        complete=False,
    )  # fmt: skip


def read_store(folder: Path, key: Key | None = None) -> None:
    """Through the manifest, every shard and every delta."""
    vault = Vault(folder / "store", key)
    problems = verify(vault)
    assert all("\n" not in str(problem) for problem in problems), problems
    with StoreReader(vault) as reader:
        reader.delta(np.arange(reader.manifest.n))
    if problems:
        raise HpculeError(str(problems[0]))


def read_signed(folder: Path) -> None:
    """As somebody would who signs what was changed."""
    store = folder / "store"
    signed = tuple(
        replace(entry, bytes=(store / entry.file).stat().st_size, sha256=sha256_file(store / entry.file))
        for entry in planned().shards
    )
    index = sha256_file(store / "index.h5")
    write_manifest(Vault(store), replace(planned(), shards=signed, index_sha256=index, complete=True))
    read_store(folder)


def read_signed_shared(folder: Path) -> None:
    """The same of a store whose samples share their perturbations."""
    store, manifest = folder / "store", read_manifest(Vault(folder / "store"))
    assert manifest.shared is not None
    file = store / manifest.shared.file
    signed = replace(manifest.shared, bytes=file.stat().st_size, sha256=sha256_file(file))
    write_manifest(Vault(store), replace(manifest, shared=signed))
    read_store(folder)


def make_exports(kind: str) -> Make:
    """A store that knows of an export, of which one record is changed."""

    def make(folder: Path) -> Path:
        make_store("manifest.json")(folder)
        records = [
            Record("train", "a.png", "a.png", True, "", {"largest_change": "8"}),
            Record("train", "-b.png", "-b.png", False, "excluded", {}),
        ]
        digest = keep_records(folder / "store", COPY, records, {"copy": "a", "files": 2})
        kept = {name: f"run/exports/{digest}{name}" for name in (HASHES, RECORDS, FACTS)}
        return folder / "store" / {**kept, "last": RECORD}[kind]

    return make


def read_exports(folder: Path) -> None:
    """As revert and verify do."""
    store = folder / "store"
    found = find_export(store, COPY)
    assert found is not None
    found.altered(COPY)
    for export in (found, last_export(store)):
        assert all(isinstance(record.published, str) for record in read_records(export.records))
    read_store(folder)


def make_shifts(folder: Path) -> Path:
    shifts = DateShifts()
    shifts.meet(["a", "b"])
    shifts.write(Vault(folder))
    return folder / SHIFTS


def make_key_file(folder: Path) -> Path:
    make_key(str(folder / "key"))
    return folder / "key"


def make_cache(folder: Path) -> Path:
    Cache(folder).get(("features",), lambda: np.ones((4, 5)))
    return next(folder.iterdir())


def read_cache(folder: Path) -> None:
    def compute() -> np.ndarray[Any, Any]:
        raise HpculeError("computed again")

    Cache(folder).get(("features",), compute)


def read_notes(folder: Path) -> None:
    done = finished_shards(Vault(folder / "store"), planned())
    if len(done) < 2:
        raise HpculeError("begun anew")
    finish(Vault(folder / "store"), planned())


def make_checkpoint(file: str) -> Make:
    def make(folder: Path) -> Path:
        state = {"weights": torch.arange(20.0), "step": 3, "names": ["a", "b"]}
        make_folder(Vault(folder), 1)
        commit(Vault(folder), 1, "key", [save(Vault(folder), 1, 0, {"shared": state})])
        return folder / "run" / "checkpoint-00000001" / file

    return make


def read_checkpoint(folder: Path) -> None:
    """With its COMMIT as it is."""
    found = latest(Vault(folder), "key")
    if found is None:
        raise HpculeError("no checkpoint")
    for name in found.names:
        found.load(name)


def read_signed_checkpoint(folder: Path) -> None:
    path = folder / "run" / "checkpoint-00000001" / "rank-00000.pt"
    part = CheckpointPart(path.name, 0, path.stat().st_size, sha256_file(path))
    commit(Vault(folder), 1, "key", [WrittenFile(path.name, part.bytes, {"shared": part})])
    read_checkpoint(folder)


def make_lock(folder: Path) -> Path:
    with StoreLock(folder) as lock:
        lock.exclusive_then_shared()
    return folder / "run" / "lock"


def read_lock(folder: Path) -> None:
    with StoreLock(folder, patience=0) as held:
        held._acquire(2)
        with StoreLock(folder, patience=0) as other:
            other.exclusive_then_shared()


STORES: dict[str, Parser] = {
    "manifest": Parser(make_store("manifest.json"), read_store, text=True),
    "manifest, encrypted": Parser(make_store("manifest.json", key=KEY), lambda folder: read_store(folder, KEY)),
    "settings of a store": Parser(make_store("run/config.yaml"), read_store, text=True),
    "shard": Parser(make_store("shards/00001-of-00002.h5"), read_store),
    "shard, signed": Parser(make_store("shards/00001-of-00002.h5"), read_signed),
    "shard, encrypted": Parser(make_store("shards/00001-of-00002.h5", key=KEY), lambda folder: read_store(folder, KEY)),
    "shared": Parser(make_store("shared.h5", shared=True), read_store),
    "shared, signed": Parser(make_store("shared.h5", shared=True), read_signed_shared),
    "index": Parser(make_store("index.h5"), read_store),
    "index, signed": Parser(make_store("index.h5"), read_signed),
    "note of a shard": Parser(make_store("run/shard-00001.json", finished=False), read_notes, text=True),
    "checkpoint": Parser(make_checkpoint("rank-00000.pt"), read_checkpoint),
    "checkpoint, signed": Parser(make_checkpoint("rank-00000.pt"), read_signed_checkpoint),
    "COMMIT": Parser(make_checkpoint("COMMIT"), read_checkpoint, text=True),
    "lock": Parser(make_lock, read_lock, valid=False),
    "hash list of an export": Parser(make_exports(HASHES), read_exports),
    "records of an export": Parser(make_exports(RECORDS), read_exports),
    "facts of an export": Parser(make_exports(FACTS), read_exports, text=True),
    "records of the last export": Parser(make_exports("last"), read_exports),
    "days by patient": Parser(make_shifts, lambda folder: read_shifts(Vault(folder)), text=True),
    "key": Parser(make_key_file, lambda folder: read_key(str(folder / "key"))),
    "cache": Parser(make_cache, read_cache),
}
