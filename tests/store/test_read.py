from __future__ import annotations

import hashlib
from dataclasses import replace

import h5py
import numpy as np
import pytest

from hpcule.config.errors import StoreError
from hpcule.store.manifest import write_manifest
from hpcule.store.read import StoreReader
from hpcule.store.vault import Vault
from hpcule.store.write import begin

CACHES = [0, 3000, 1 << 30]
"""No shard in memory, some of them, all."""

KINDS = [
    {},
    {"epsilon": 200.0},
    {"norm": "l2", "epsilon": 30.0, "compression": "lzf"},
    {"unit": "cluster", "groups": 4},
    {"unit": "class", "groups": 3, "norm": "l2", "epsilon": 30.0},
]


@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("settings", KINDS)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_random_round_trips(make_source, make_store, settings, dtype, cache):
    source = make_source(83, dtype=dtype)
    store, manifest, delta, group = make_store(source, shards=5, **settings)
    full = delta if group is None else delta[group]
    rng = np.random.default_rng(0)
    with StoreReader(Vault(store), cache_bytes=cache) as reader:
        for count in (0, 1, 5, 40, 83, 200):
            ids = rng.integers(0, 83, count)
            found = reader.delta(ids)
            assert found.dtype == manifest.delta_dtype
            np.testing.assert_array_equal(found, full[ids])
            if count:
                published = reader.published(ids, source.read(ids))
                exact = np.clip(source.samples[ids].astype(np.int64) + full[ids], 0, source.levels)
                assert published.dtype == dtype
                np.testing.assert_array_equal(published, exact)
        ids = rng.permutation(83)
        if group is None:
            assert reader.group(ids) is None
        else:
            np.testing.assert_array_equal(reader.group(ids), group[ids])
            np.testing.assert_array_equal(reader.shared_delta, delta)


@pytest.mark.parametrize("settings", KINDS)
def test_shard_contents(make_source, make_store, settings):
    source = make_source(83)
    store, manifest, delta, group = make_store(source, shards=5, **settings)
    with StoreReader(Vault(store)) as reader:
        for index, entry in enumerate(manifest.shards):
            shard = reader.shard(index)
            rows = slice(entry.first, entry.first + entry.count)
            assert shard.first == entry.first
            np.testing.assert_array_equal(shard.ids, np.arange(83)[rows])
            np.testing.assert_array_equal(shard.labels, source.labels[rows])
            if group is None:
                np.testing.assert_array_equal(shard.delta, delta[rows])
                assert shard.group is None
            else:
                np.testing.assert_array_equal(shard.group, group[rows])
                assert shard.delta is None


def test_unlabelled_shards(make_source, make_store):
    store, *_ = make_store(make_source(classes=0))
    assert StoreReader(Vault(store)).shard(0).labels is None


@pytest.mark.parametrize("shards", [1, 7])
def test_the_virtual_master_shows_the_same(make_source, make_store, shards):
    source = make_source(83)
    store, *_ = make_store(source, shards=shards)
    with StoreReader(Vault(store)) as reader, h5py.File(store / "index.h5", "r", locking=False) as file:
        ids = np.arange(83)
        np.testing.assert_array_equal(file["id"], ids)
        np.testing.assert_array_equal(file["label"], source.labels)
        np.testing.assert_array_equal(file["delta"], reader.delta(ids))


def test_the_virtual_master_travels_with_its_folder_and_shows_holes(make_source, make_store):
    source = make_source()
    store, manifest, *_ = make_store(source, unit="class", groups=3)
    moved = store.rename(store.parent / "moved")
    (moved / manifest.shards[1].file).unlink()
    with h5py.File(moved / "index.h5", "r") as file:
        np.testing.assert_array_equal(file["id"][:12], np.arange(12))
        assert np.all(file["group"][12:25] == np.iinfo(np.int64).min)
    store, manifest, *_ = make_store(source)
    (store / manifest.shards[1].file).unlink()
    with h5py.File(store / "index.h5", "r") as file:
        assert np.all(file["delta"][12:25] == -128)


def test_few_files_stay_open(make_source, make_store, monkeypatch):
    monkeypatch.setattr("hpcule.store.read._OPEN_FILES", 2)
    source = make_source(40)
    store, _, delta, _ = make_store(source, shards=10)
    with StoreReader(Vault(store), cache_bytes=0) as reader:
        for seed in range(3):
            ids = np.random.default_rng(seed).permutation(40)
            np.testing.assert_array_equal(reader.delta(ids), delta[ids])
            assert len(reader._open) == 2
        reader.close()
        np.testing.assert_array_equal(reader.delta(ids), delta[ids])


def test_an_incomplete_store_says_how_to_resume(make_source, make_manifest, tmp_path):
    begin(Vault(tmp_path / "store"), make_manifest(make_source()))
    with pytest.raises(StoreError, match=r"is not complete: run `hpcule craft pil` .* and --resume"):
        StoreReader(Vault(tmp_path / "store"))


def test_missing_files_are_named(make_source, make_store):
    store, manifest, *_ = make_store(make_source(), unit="class", groups=3)
    for file in (manifest.shards[1].file, manifest.shards[3].file, "shared.h5"):
        (store / file).unlink()
    message = r"lacks shards/00001-of-00004\.h5, shards/00003-of-00004\.h5, shared\.h5"
    with pytest.raises(StoreError, match=message):
        StoreReader(Vault(store))


@pytest.mark.parametrize("cache", CACHES)
def test_a_shard_of_another_run_is_not_read(make_source, make_store, cache):
    source = make_source()
    store, manifest, *_ = make_store(source)
    other, *_ = make_store(source, name="other", seed=2, epsilon=4.0)
    file = manifest.shards[2].file
    (store / file).write_bytes((other / file).read_bytes())
    reader = StoreReader(Vault(store), cache_bytes=cache)
    reader.delta(np.arange(25))
    with pytest.raises(StoreError, match=r"00002-of-00004\.h5: belongs to another run"):
        reader.delta(np.arange(50))


@pytest.mark.parametrize("cache", CACHES)
def test_a_flipped_byte_in_a_delta_is_not_read(make_source, make_store, cache):
    store, manifest, delta, _ = make_store(make_source())
    path = store / manifest.shards[0].file
    data = bytearray(path.read_bytes())
    data[data.index(delta[3].tobytes()) + 5] ^= 1
    path.write_bytes(data)
    with pytest.raises(StoreError, match=r"00000-of-00004\.h5: unreadable"):
        StoreReader(Vault(store), cache_bytes=cache).delta(np.array([3]))


@pytest.mark.parametrize(
    "trick", ["external link", "soft link", "external data", "virtual", "unallocated", "hole", "bomb"]
)
def test_a_foreign_hdf5_file_cannot_lead_elsewhere(make_source, make_store, tmp_path, trick):
    """None of these may read another file, or allocate what the file does not hold."""
    source = make_source()
    store, manifest, delta, _ = make_store(source, shards=1)
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["delta"] = delta
    shape = delta.shape
    (tmp_path / "raw").write_bytes(delta.tobytes())
    if trick == "bomb":
        # All chunks claim to be there, in a file of some kilobytes.
        shape = (1_000_000_000, *shape[1:])
        claimed = replace(manifest.shards[0], count=10**9)
        write_manifest(Vault(store), replace(manifest, n=10**9, shards=(claimed,)))
        manifest = StoreReader(Vault(store)).manifest
    path = store / manifest.shards[0].file
    with h5py.File(path, "r+") as file:
        del file["delta"]
        file.attrs["run_key"] = np.bytes_(manifest.run_key)
        if trick == "external link":
            file["delta"] = h5py.ExternalLink(str(secret), "delta")
        elif trick == "soft link":
            file["delta"] = h5py.SoftLink("/id")
        elif trick == "external data":
            file.create_dataset("delta", shape, np.int8, external=[(str(tmp_path / "raw"), 0, delta.nbytes)])
        elif trick == "virtual":
            layout = h5py.VirtualLayout(shape, np.int8)
            layout[:] = h5py.VirtualSource(str(secret), "delta", shape)
            file.create_virtual_dataset("delta", layout)
        elif trick == "unallocated":
            file.create_dataset("delta", shape, np.int8, chunks=(10, *shape[1:]), fletcher32=True)
        elif trick == "hole":
            file.create_dataset("delta", shape, np.int8, chunks=(10, *shape[1:]), fletcher32=True)[10:] = delta[10:]
        else:
            del file["id"]
            file.create_dataset("id", (10**9,), np.int64, chunks=(10**9 // 10,), compression="gzip")
            file.create_dataset("delta", shape, np.int8, chunks=(10**6, *shape[1:]), compression="gzip")
    reader = StoreReader(Vault(store))
    with pytest.raises(StoreError, match=r"not stored in the file itself|is not fully there"):
        reader.delta(np.arange(3))
    with pytest.raises(StoreError, match=r"not stored in the file itself|is not fully there"):
        StoreReader(Vault(store), cache_bytes=0).delta(np.arange(3))


@pytest.mark.parametrize("settings", [{}, {"compression": "gzip"}, {"unit": "class", "groups": 3}])
def test_a_shape_that_only_the_manifest_claims_takes_no_memory(make_source, make_store, settings):
    store, manifest, *_ = make_store(make_source(), **settings)
    write_manifest(Vault(store), replace(manifest, sample_shape=(3, 1 << 31, 5)))
    with StoreReader(Vault(store), cache_bytes=0) as reader, pytest.raises(StoreError, match="belongs to another run"):
        reader.delta(np.arange(manifest.n))


@pytest.mark.parametrize("settings", KINDS)
def test_the_hash_of_deltas_depends_on_their_values_alone(make_source, make_store, settings):
    for shards in (3, 5):
        store, _, delta, group = make_store(make_source(83), name=f"store-{shards}", shards=shards, **settings)
        arrays = [delta.astype("<i4")] if group is None else [delta.astype("<i4"), group.astype("<i8")]
        expected = hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()
        with StoreReader(Vault(store)) as reader:
            assert reader.deltas_sha256() == expected
