"""Stores that tests of victims train on."""

from __future__ import annotations

import numpy as np
import pytest

from hpcule.store.manifest import Manifest, SharedEntry, SourceFacts, plan_shards
from hpcule.store.read import StoreReader
from hpcule.store.vault import Vault
from hpcule.store.write import begin, finish, prepare_shard, prepare_shared, put


@pytest.fixture
def make_store(tmp_path):
    """A store for a source, of zeros unless told otherwise: what counts here is its budget, and what shares a delta."""

    def make(source, *, epsilon=8.0, norm="linf", groups=0, deltas=None, free_pixels=0):
        deltas = np.zeros((groups or len(source), *source.shape)) if deltas is None else deltas
        n, path = len(source), tmp_path / f"store-{len(list(tmp_path.iterdir()))}"
        manifest = Manifest(
            hpcule="0.1.0",
            method="toy",
            config={},
            seed=0,
            source=SourceFacts("toys", "npz", "all", "0" * 64),
            epsilon=epsilon,
            norm=norm,
            free_pixels=free_pixels,
            unit="class" if groups else "sample",
            groups=groups,
            n=n,
            sample_shape=source.shape,
            levels=source.levels,
            applied_at="native",
            working_size=None,
            reduced=False,
            compression=None,
            shards=plan_shards(n, [(0, n // 2), (n // 2, n - n // 2)]),
            shared=SharedEntry("shared.h5", groups) if groups else None,
            complete=False,
        )
        begin(Vault(path), manifest)
        for number, entry in enumerate(manifest.shards):
            rows = slice(entry.first, entry.first + entry.count)
            delta = None if groups else deltas[rows].astype(manifest.delta_dtype)
            group = source.classes(rows) if groups else None
            put(Vault(path), manifest, prepare_shard(manifest, number, source.classes(rows), delta=delta, group=group))
        if groups:
            put(Vault(path), manifest, prepare_shared(manifest, deltas.astype(manifest.delta_dtype)))
        finish(Vault(path), manifest)
        return StoreReader(Vault(path))

    return make
