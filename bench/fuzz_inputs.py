"""Valid inputs of every parser, each a file that is changed, and what reads it whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from fuzz_sources import LABELS, SOURCES, Parser

from hpcule.config.errors import HpculeError
from hpcule.config.tree import build_config, load_yaml
from hpcule.craft.table import configure
from hpcule.jobs.site import load_site
from hpcule.store.checkpoint import CheckpointPart, commit, latest, save_part
from hpcule.store.files import sha256_file
from hpcule.store.lock import StoreLock
from hpcule.store.manifest import Manifest, SourceFacts, plan_shards, write_manifest
from hpcule.store.read import StoreReader
from hpcule.store.vault import Vault
from hpcule.store.verify import verify
from hpcule.store.write import begin, finish, finished_shards, prepare_shard, put
from hpcule.study.config import StudyConfig
from hpcule.study.folder import StudyFolder
from hpcule.study.grid import StudySamples


def make_store(file: str, *, finished: bool = True) -> Callable[[Path], Path]:
    """A store of which one file is changed."""

    def make(folder: Path) -> Path:
        store = folder / "store"
        manifest = planned()
        begin(Vault(store), manifest)
        for index, entry in enumerate(manifest.shards):
            delta = np.full((entry.count, *manifest.sample_shape), 3, np.int8)
            put(Vault(store), manifest, prepare_shard(manifest, index, LABELS[: entry.count], delta=delta))
        if finished:
            finish(Vault(store), manifest)
        return store / file

    return make


def planned() -> Manifest:
    return Manifest(
        hpcule="0", method="pil", config={"skip_unreadable": False}, seed=1, source=SourceFacts("a", "npz", "all", "0"),
        epsilon=8.0, norm="linf", unit="sample", groups=0, n=12, sample_shape=(3, 8, 8), levels=255,
        applied_at="native", working_size=None, reduced=False, compression="gzip",
        shards=plan_shards(12, [(0, 6), (6, 6)]), shared=None, complete=False,
    )  # fmt: skip


def read_store(folder: Path) -> None:
    """Through the manifest, every shard and every delta."""
    problems = verify(Vault(folder / "store"))
    assert all("\n" not in str(problem) for problem in problems), problems
    with StoreReader(Vault(folder / "store")) as reader:
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


def read_notes(folder: Path) -> None:
    done = finished_shards(Vault(folder / "store"), planned())
    if len(done) < 2:
        raise HpculeError("begun anew")
    finish(Vault(folder / "store"), planned())


def make_checkpoint(file: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        state = {"weights": torch.arange(20.0), "step": 3, "names": ["a", "b"]}
        commit(Vault(folder), 1, "key", {"shared": save_part(Vault(folder), 1, "shared", state)})
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
    path = folder / "run" / "checkpoint-00000001" / "shared.pt"
    commit(Vault(folder), 1, "key", {"shared": CheckpointPart(path.stat().st_size, sha256_file(path))})
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


def make_text(text: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / "file.yaml").write_text(text)
        return folder / "file.yaml"

    return make


def make_study(file: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        study = StudyFolder(folder / "study")
        study.begin(
            build_config(StudyConfig, {"name": "a", "data": "digits", "method": "pil"}),
            StudySamples(100, training="a", test="b"),
        )
        (study.path / "running" / "item.json").write_text(
            '{"stage": "a", "done": 1, "total": 2, "started": 1.5, "time": 2.5, "host": "b"}'
        )
        (study.path / "done" / "other.json").write_text('{"loss_last": 0.5}')
        (study.path / "failed" / "third.json").write_text('{"error": "a", "host": "b", "job": ""}')
        return study.path / file

    return make


def read_study(folder: Path) -> None:
    study = StudyFolder(folder / "study")
    study.config()
    study.samples()
    for key in ("item", "other", "third"):
        study.status(key)
    study.best(["other", "item"])


STUDY = (
    "name: a\ndata: digits\nmethod: uc\nseeds: [0, 1]\nfactors: {craft.method.batch: [32, 64]}\nvictim: {epochs: 3}\n"
)
CRAFT = "preset: smoke\nseed: 3\ndeterministic: true\nstore: {shards: 2}\nmethod: {name: pil, epsilon: 8, epochs: 1}\n"
SITE = "partition: a\nnodes: 2\nminutes: 60\nsetup: [module load b]\nsbatch: {constraint: gpu}\n"
PARSERS: dict[str, Parser] = SOURCES | {
    "manifest": Parser(make_store("manifest.json"), read_store, text=True),
    "shard": Parser(make_store("shards/00001-of-00002.h5"), read_store),
    "shard, signed": Parser(make_store("shards/00001-of-00002.h5"), read_signed),
    "index": Parser(make_store("index.h5"), read_store),
    "index, signed": Parser(make_store("index.h5"), read_signed),
    "note of a shard": Parser(make_store("run/shard-00001.json", finished=False), read_notes, text=True),
    "checkpoint": Parser(make_checkpoint("shared.pt"), read_checkpoint),
    "checkpoint, signed": Parser(make_checkpoint("shared.pt"), read_signed_checkpoint),
    "COMMIT": Parser(make_checkpoint("COMMIT"), read_checkpoint, text=True),
    "lock": Parser(make_lock, read_lock),
    "settings": Parser(
        make_text(CRAFT),
        lambda folder: configure("pil", "digits", preset=None, file=load_yaml(folder / "file.yaml"), overrides=[]),
        text=True,
    ),
    "study": Parser(
        make_text(STUDY), lambda folder: build_config(StudyConfig, load_yaml(folder / "file.yaml")), text=True
    ),
    "site": Parser(make_text(SITE), lambda folder: load_site(str(folder / "file.yaml")), text=True),
    "study.yaml": Parser(make_study("study.yaml"), read_study, text=True),
    "facts.json": Parser(make_study("facts.json"), read_study, text=True),
    "progress of an item": Parser(make_study("running/item.json"), read_study, text=True),
    "result of an item": Parser(make_study("done/other.json"), read_study, text=True),
    "failure of an item": Parser(make_study("failed/third.json"), read_study, text=True),
}
