"""Fixtures that make sources, manifests and stores."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hpcule.data.source import Source
from hpcule.store.files import sha256_file
from hpcule.store.fingerprint import fingerprint
from hpcule.store.manifest import Manifest, SharedEntry, SourceFacts, plan_shards, write_manifest
from hpcule.store.vault import Vault
from hpcule.store.write import begin, finish, prepare_shard, prepare_shared, put


class MemorySource(Source):
    """Samples in an array; `files` are the relative paths that they pretend to come from."""

    def __init__(self, samples, labels=None, class_names=None, *, kind="npz", split="all", files=None):
        self.name, self.kind, self.split = "toys", kind, split
        self.samples, self.labels, self.files = samples, labels, files
        self.shape, self.levels = samples.shape[1:], 255 if samples.dtype == np.uint8 else 65535
        self.class_names = class_names

    def __len__(self):
        return len(self.samples)

    def read(self, ids):
        return self.samples[ids]

    def file_name(self, sample):
        return self.files[sample] if self.files is not None else None


@pytest.fixture
def make_source() -> Callable[..., MemorySource]:
    def make(n=50, shape=(3, 6, 5), *, dtype=np.uint8, classes=3, seed=0, **settings):
        rng = np.random.default_rng(seed)
        samples = rng.integers(0, np.iinfo(dtype).max, (n, *shape), dtype=dtype, endpoint=True)
        labels = rng.integers(0, classes, n) if classes else None
        names = settings.pop("class_names", tuple(f"class{k}" for k in range(classes)) if classes else None)
        return MemorySource(samples, labels, names, **settings)

    return make


@pytest.fixture
def make_manifest() -> Callable[..., Manifest]:
    """A planned manifest for a source that is cut into shards of unequal size."""

    def make(source: Source, *, shards=4, unit="sample", groups=0, epsilon=8.0, **settings: Any) -> Manifest:
        bounds = np.linspace(0, len(source), shards + 1).astype(int).tolist()
        ranges = [(low, high - low) for low, high in pairwise(bounds)]
        facts = SourceFacts(source.name, source.kind, source.split, fingerprint(source, ranges))
        planned = Manifest(
            hpcule="0.1.0",
            method="pil",
            config={"method": {"epsilon": epsilon}, "image_size": settings.get("working_size")},
            seed=4711,
            source=facts,
            epsilon=epsilon,
            norm="linf",
            unit=unit,
            groups=groups,
            n=len(source),
            sample_shape=source.shape,
            levels=source.levels,
            applied_at="native",
            working_size=None,
            reduced=False,
            compression=None,
            shards=plan_shards(len(source), ranges),
            shared=SharedEntry("shared.h5", groups) if groups else None,
            complete=False,
        )
        return replace(planned, **settings)

    return make


@pytest.fixture
def draw_delta() -> Callable[..., np.ndarray]:
    """Random perturbations that keep the budget and, by sample, the grid."""

    def draw(source: MemorySource, manifest: Manifest, seed=1) -> np.ndarray:
        rng = np.random.default_rng(seed)
        count = manifest.groups or len(source)
        whole = int(manifest.epsilon)
        if manifest.norm == "linf":
            delta = rng.integers(-whole, whole, (count, *source.shape), endpoint=True)
        else:
            delta = rng.normal(size=(count, *source.shape))
            delta *= 0.9 * whole / np.sqrt((delta**2).sum(axis=(1, 2, 3), keepdims=True))
            delta = np.trunc(delta).astype(np.int64)
        if manifest.unit == "sample":
            ids = np.arange(len(source))
            clean = source.read(ids).astype(np.int64)
            own = np.arange(source.shape[2]) < source.lengths(ids)[:, None, None, None]
            delta = (np.clip(clean + delta, 0, source.levels) - clean) * own
        return delta.astype(manifest.delta_dtype)

    return draw


@pytest.fixture
def make_store(make_manifest, draw_delta, tmp_path):
    """Write a complete store; returns (path, manifest, delta by id or by group, group by id or None)."""

    def make(source: MemorySource, *, name="store", seed=1, key=None, **settings):
        path, planned = tmp_path / name, make_manifest(source, **settings)
        delta = draw_delta(source, planned, seed)
        group = np.random.default_rng(seed).integers(0, planned.groups, planned.n) if planned.groups else None
        begin(Vault(path, key), planned)
        for index, entry in enumerate(planned.shards):
            rows = slice(entry.first, entry.first + entry.count)
            labels = source.classes(rows) if source.labels is not None else None
            if group is None:
                put(Vault(path, key), planned, prepare_shard(planned, index, labels, delta=delta[rows]))
            else:
                put(Vault(path, key), planned, prepare_shard(planned, index, labels, group=group[rows]))
        if planned.shared:
            put(Vault(path, key), planned, prepare_shared(planned, delta))
        return path, finish(Vault(path, key), planned), delta, group

    return make


@pytest.fixture
def sign_again():
    """Enter a file's present size and SHA-256 into the manifest, as somebody would who covers a change up."""

    def sign(store: Path, manifest: Manifest, file: str) -> Manifest:
        facts = {"bytes": (store / file).stat().st_size, "sha256": sha256_file(store / file)}
        shards = tuple(replace(e, **facts) if e.file == file else e for e in manifest.shards)
        shared = replace(manifest.shared, **facts) if manifest.shared and manifest.shared.file == file else None
        signed = replace(manifest, shards=shards, shared=shared or manifest.shared)
        write_manifest(Vault(store), signed)
        return signed

    return sign


@pytest.fixture
def mount(tmp_path):
    """Mount a fresh tmpfs with the given options and return its folder."""
    mounted: list[Path] = []

    def attach(options: str) -> Path:
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        if os.geteuid() != 0:
            pytest.skip("mounting a file system needs root")
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", folder], capture_output=True, text=True)
        if done.returncode != 0:
            pytest.skip(f"mounting a file system is not allowed here: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield attach
    for folder in mounted:
        subprocess.run(["umount", folder], check=True)


@pytest.fixture
def small_disk(mount) -> Path:
    """A real file system of 1 MiB."""
    return mount("size=1m,mode=0700")
