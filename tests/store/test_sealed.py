"""Encrypted stores: they hold what the same store in the clear holds, and show nothing of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from leaks import leaks

from hpcule.config.errors import StoreError
from hpcule.store import checkpoint
from hpcule.store.files import sha256_file
from hpcule.store.hdf5 import DamageError
from hpcule.store.manifest import MANIFEST, read_manifest
from hpcule.store.read import StoreReader
from hpcule.store.seal import Key, is_sealed
from hpcule.store.vault import Vault
from hpcule.store.verify import verify
from hpcule.store.write import begin, finished_shards, prepare_shard, put

KEY, OTHER = Key(bytes(range(32))), Key(bytes(32))
KINDS = [{}, {"unit": "class", "groups": 3}, {"compression": "gzip"}]


@pytest.fixture(params=KINDS, ids=lambda kind: "-".join(kind) or "sample")
def both(request, make_source, make_store):
    """The same store in the clear and encrypted: (source, path, path)."""
    source, settings = make_source(300, (3, 16, 16)), {"seed": 3, **request.param}
    plain, *_ = make_store(source, name="plain", **settings)
    sealed, *_ = make_store(source, name="sealed", key=KEY, **settings)
    return source, plain, sealed


def test_the_contents_are_the_same(both):
    source, plain, sealed = both
    assert read_manifest(Vault(plain)).run_key == read_manifest(Vault(sealed, KEY)).run_key
    everything, some = np.arange(len(source)), np.random.default_rng(0).integers(0, len(source), 99)
    for cache in (0, 1 << 20):
        with StoreReader(Vault(plain)) as clear, StoreReader(Vault(sealed, KEY), cache_bytes=cache) as reader:
            for ids in (everything, some):
                assert np.array_equal(reader.delta(ids), clear.delta(ids))
                assert np.array_equal(reader.published(ids, source.read(ids)), clear.published(ids, source.read(ids)))
            assert np.array_equal(reader.shard(2).labels, source.labels[reader.shard(2).ids])


def test_nothing_of_them_can_be_seen(make_source, make_manifest, make_store):
    source = make_source(300, (3, 16, 16))
    needles = {
        "seed": str(make_manifest(source).seed).encode() + b",",
        "run key": make_manifest(source).run_key.encode(),
    }
    needles |= {"method": b'"pil"', "labels": source.labels[:20].tobytes(), "fingerprint": b"fingerprint"}
    plain, _, delta, _ = make_store(source, name="plain")
    sealed, *_ = make_store(source, name="sealed", key=KEY)
    needles |= {f"delta {sample}": one.ravel()[:24].tobytes() for sample, one in enumerate(delta)}
    assert {name for name, _ in leaks(plain, needles)} == set(needles)
    assert leaks(sealed, needles) == set()
    files = {str(path.relative_to(sealed)) for path in sealed.rglob("*") if path.is_file()}
    assert all(is_sealed(sealed / file) for file in files)
    in_the_clear = {str(path.relative_to(plain)) for path in plain.rglob("*") if path.is_file()}
    assert files == in_the_clear - {"index.h5"}


def test_the_manifest_counts_the_bytes_that_are_there(both):
    _, _, sealed = both
    for entry in read_manifest(Vault(sealed, KEY)).files:
        assert entry.bytes == (sealed / entry.file).stat().st_size
        assert entry.sha256 == sha256_file(sealed / entry.file)


def test_verify(both):
    source, _, sealed = both
    assert verify(Vault(sealed, KEY), source) == []
    shard = sealed / read_manifest(Vault(sealed, KEY)).shards[1].file
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-100] + bytes(100))
    assert [(problem.kind, problem.file) for problem in verify(Vault(sealed, KEY), source)] == [
        ("checksum", str(shard.relative_to(sealed)))
    ]
    with (
        pytest.raises(DamageError, match=r"unreadable .changed since it was encrypted"),
        StoreReader(Vault(sealed, KEY)) as reader,
    ):
        reader.shard(1)
    shard.write_bytes(whole[:-1])
    assert [problem.kind for problem in verify(Vault(sealed, KEY), source)] == ["size"]
    shard.unlink()
    assert [problem.kind for problem in verify(Vault(sealed, KEY), source)] == ["missing"]


def test_another_files_contents(both):
    """Also for somebody who could write a manifest that fits."""
    _, _, sealed = both
    manifest = read_manifest(Vault(sealed, KEY))
    first, second = manifest.shards[:2]
    (sealed / second.file).write_bytes((sealed / first.file).read_bytes())
    with pytest.raises(DamageError, match="another file's contents"), StoreReader(Vault(sealed, KEY)) as reader:
        reader.shard(1)


@pytest.mark.parametrize("use", [read_manifest, StoreReader])
def test_wrong_keys(both, use):
    _, plain, sealed = both
    for store, key, message in (
        (sealed, None, "sealed is encrypted: name its key with --key"),
        (sealed, OTHER, "is encrypted with another key than the one given"),
        (plain, KEY, "plain is not encrypted: leave --key out"),
    ):
        with pytest.raises(StoreError, match=message):
            use(Vault(store, key))
    (problem,) = verify(Vault(sealed, OTHER))
    assert "another key" in problem.message


def test_a_damaged_manifest(both):
    _, _, sealed = both
    whole = (sealed / MANIFEST).read_bytes()
    (sealed / MANIFEST).write_bytes(whole[:-1])
    with pytest.raises(StoreError, match=r"manifest.json is damaged \(changed since it was encrypted"):
        read_manifest(Vault(sealed, KEY))


def test_a_run_goes_on_with_its_key_alone(make_source, make_manifest, draw_delta, tmp_path):
    source = make_source()
    planned = make_manifest(source)
    delta = draw_delta(source, planned)
    begin(Vault(tmp_path / "store", KEY), planned)
    for index in (0, 2):
        rows = slice(planned.shards[index].first, planned.shards[index].first + planned.shards[index].count)
        put(
            Vault(tmp_path / "store", KEY),
            planned,
            prepare_shard(planned, index, source.labels[rows], delta=delta[rows]),
        )
    assert finished_shards(Vault(tmp_path / "store", KEY), planned) == {0, 2}
    for key in (None, OTHER):
        with pytest.raises(StoreError, match="is encrypted"):
            begin(Vault(tmp_path / "store", key), planned)


def test_checkpoints(tmp_path):
    (tmp_path / "run").mkdir()
    state = {"weights": torch.arange(5.0), "note": "a telling text"}
    vault = Vault(tmp_path, KEY)
    checkpoint.make_folder(vault, 3)
    states = {"other": {"x": torch.zeros(3)}, "shared": state}
    checkpoint.commit(vault, 3, "some run key", [checkpoint.save(vault, 3, 0, states)])
    assert leaks(tmp_path, {"note": b"telling", "run key": b"some run key", "weights": b"weights"}) == set()
    saved = checkpoint.latest(Vault(tmp_path, KEY), "some run key")
    assert torch.equal(saved.load("shared")["weights"], state["weights"])
    for key in (None, OTHER):
        with pytest.raises(StoreError, match="is encrypted"):
            checkpoint.latest(Vault(tmp_path, key), "some run key")
    path = tmp_path / "run" / "checkpoint-00000003" / "rank-00000.pt"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(StoreError, match="is damaged: remove the folder checkpoint-00000003"):
        saved.load("shared")
