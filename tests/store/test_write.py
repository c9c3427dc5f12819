from __future__ import annotations

import json
import time
from dataclasses import replace

import h5py
import numpy as np
import pytest

from hpcule.config.errors import StoreError
from hpcule.store.files import sha256_file
from hpcule.store.manifest import read_manifest
from hpcule.store.vault import Vault
from hpcule.store.write import begin, finish, finished_shards, prepare_shard, prepare_shared, put


def contents(store):
    return {str(path.relative_to(store)): path.read_bytes() for path in sorted(store.rglob("*")) if path.is_file()}


def test_two_writes_at_different_times_give_the_same_bytes(make_source, make_store):
    source = make_source(61)
    first, *_ = make_store(source, name="first")
    time.sleep(1.1)  # HDF5 keeps whole seconds
    second, *_ = make_store(source, name="second")
    assert contents(first) == contents(second)


def test_everything_is_private(make_source, make_store):
    store, *_ = make_store(make_source(), unit="class", groups=3)
    for path in (store, *store.rglob("*")):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path


def test_the_files_of_a_shard(make_source, make_store):
    source = make_source(200, shape=(3, 64, 64))
    store, manifest, delta, _ = make_store(source, shards=2, compression="gzip")
    assert read_manifest(Vault(store)) == manifest
    with h5py.File(store / manifest.shards[1].file, "r") as file:
        assert set(file) == {"id", "label", "delta"}
        np.testing.assert_array_equal(file["id"], np.arange(100, 200))
        np.testing.assert_array_equal(file["label"], source.labels[100:])
        np.testing.assert_array_equal(file["delta"], delta[100:])
        assert file["delta"].dtype == np.int8
        assert file["id"].dtype == file["label"].dtype == np.int64
        assert all(file[name].fletcher32 for name in file)
        assert file["delta"].compression == "gzip"
        assert file["delta"].chunks == (21, 3, 64, 64)
        assert 64 << 10 <= np.prod(file["delta"].chunks) <= 256 << 10
        assert file.attrs["run_key"].decode() == manifest.run_key


def test_a_sample_above_the_chunk_size_is_one_chunk(make_source, make_store):
    store, manifest, *_ = make_store(make_source(4, shape=(3, 400, 300)), shards=1)
    with h5py.File(store / manifest.shards[0].file, "r") as file:
        assert file["delta"].chunks == (1, 3, 400, 300)


def test_no_labels_means_no_dataset(make_source, make_store):
    store, manifest, *_ = make_store(make_source(classes=0))
    for file in (manifest.shards[0].file, "index.h5"):
        with h5py.File(store / file, "r") as opened:
            assert set(opened) == {"id", "delta"}


def test_shared_perturbations_are_stored_once(make_source, make_store):
    store, manifest, delta, group = make_store(make_source(), unit="cluster", groups=5)
    assert manifest.shared.sha256 == sha256_file(store / "shared.h5")
    with h5py.File(store / "shared.h5", "r") as file:
        np.testing.assert_array_equal(file["delta"], delta)
    with h5py.File(store / manifest.shards[2].file, "r") as file:
        assert set(file) == {"id", "label", "group"}
        np.testing.assert_array_equal(file["group"], group[25:37])


def test_the_manifest_says_incomplete_until_the_end(make_source, make_manifest, draw_delta, tmp_path):
    source = make_source()
    planned = make_manifest(source, shards=2)
    store = tmp_path / "store"
    begin(Vault(store), planned)
    assert read_manifest(Vault(store)) == planned
    put(Vault(store), planned, prepare_shard(planned, 0, source.labels[:25], delta=draw_delta(source, planned)[:25]))
    assert read_manifest(Vault(store)) == planned


def test_finish_names_every_missing_file(make_source, make_manifest, tmp_path):
    source = make_source()
    planned = make_manifest(source, shards=4, unit="class", groups=3)
    begin(Vault(tmp_path / "store"), planned)
    put(Vault(tmp_path / "store"), planned, prepare_shard(planned, 1, source.labels[12:25], group=source.labels[12:25]))
    with pytest.raises(StoreError) as caught:
        finish(Vault(tmp_path / "store"), planned)
    for file in ("shards/00000-of-00004.h5", "shards/00002-of-00004.h5", "shards/00003-of-00004.h5", "shared.h5"):
        assert file in str(caught.value)
    assert "00001-of-00004" not in str(caught.value)
    assert "--resume" in str(caught.value)
    assert not read_manifest(Vault(tmp_path / "store")).complete


def test_finished_shards(make_source, make_store):
    store, manifest, *_ = make_store(make_source(), shards=6)
    assert finished_shards(Vault(store), manifest) == {0, 1, 2, 3, 4, 5}
    (store / manifest.shards[0].file).unlink()
    with (store / manifest.shards[1].file).open("r+b") as file:
        file.truncate(100)
    with (store / manifest.shards[2].file).open("r+b") as file:
        file.seek(3000)
        byte = file.read(1)[0]
        file.seek(3000)
        file.write(bytes([byte ^ 1]))
    (store / "run/shard-00003.json").unlink()
    (store / "run/shard-00004.json").write_text("[]")
    assert finished_shards(Vault(store), manifest) == {5}
    assert finished_shards(Vault(store), replace(manifest, seed=1)) == set()


def test_a_note_of_another_shard_does_not_count(make_source, make_store):
    store, manifest, *_ = make_store(make_source(48), shards=2)
    note = json.loads((store / "run/shard-00000.json").read_text())
    (store / "run/shard-00001.json").write_text(json.dumps(note))
    assert finished_shards(Vault(store), manifest) == {0}


def test_notes_that_contradict_each_other(make_source, make_manifest, draw_delta, tmp_path):
    source, store = make_source(48), tmp_path / "store"
    planned = make_manifest(source, shards=2)
    delta = draw_delta(source, planned)
    begin(Vault(store), planned)
    for index, labels in enumerate((source.labels[:24], None)):
        put(Vault(store), planned, prepare_shard(planned, index, labels, delta=delta[24 * index : 24 * index + 24]))
    with pytest.raises(StoreError, match=r"contradict each other: remove its shard-\*\.json"):
        finish(Vault(store), planned)
    note = json.loads((store / "run/shard-00001.json").read_text())
    (store / "run/shard-00001.json").write_text(json.dumps({**note, "labelled": {}}))
    assert finished_shards(Vault(store), planned) == {0}


def test_begin_removes_what_a_killed_writer_left(make_source, make_manifest, tmp_path):
    store, planned = tmp_path / "store", make_manifest(make_source())
    begin(Vault(store), planned)
    leftover = store / "shards" / ".00000-of-00004.h5.abcd.partial"
    leftover.write_bytes(b"half")
    begin(Vault(store), planned)
    assert not leftover.exists()


def test_finish_removes_what_a_killed_writer_left(make_source, make_store):
    store, manifest, *_ = make_store(make_source())
    for folder in (store / "shards", store / "run"):
        (folder / ".x.h5.abcd.partial").touch()
    (store / ".manifest.json.abcd.partial").touch()
    foreign = [store / ".film.mkv.partial", store / ".thesis.pdf.abcd.partial", store / ".manifest.json.folder.partial"]
    foreign[0].touch()
    foreign[1].touch()
    foreign[2].mkdir()
    finish(Vault(store), manifest)
    assert sorted(store.rglob("*.partial")) == sorted(foreign), "nothing of others is removed"


def test_begin_keeps_its_hands_off_another_run(make_source, make_store):
    store, manifest, *_ = make_store(make_source())
    with pytest.raises(StoreError, match="store holds another run"):
        begin(Vault(store), replace(manifest, seed=1, complete=False))
    assert read_manifest(Vault(store)) == manifest
    begin(Vault(store), replace(manifest, complete=False))
    assert finish(Vault(store), manifest) == manifest


@pytest.mark.parametrize("wrong", ["dtype", "shape", "budget", "labels", "group", "both"])
def test_what_a_method_may_not_hand_over(make_source, make_manifest, draw_delta, tmp_path, wrong):
    source = make_source()
    shared = wrong == "group"
    planned = make_manifest(source, shards=1, **({"unit": "class", "groups": 3} if shared else {}))
    begin(Vault(tmp_path / "store"), planned)
    delta, labels, group = draw_delta(source, planned), source.labels, None
    if wrong == "dtype":
        delta = delta.astype(np.int16)
    elif wrong == "shape":
        delta = delta[1:]
    elif wrong == "budget":
        delta[7, 0, 0, 0] = -9
    elif wrong == "labels":
        labels = labels.astype(np.int32)
    elif wrong == "group":
        delta, group = None, labels + 1
    else:
        group = labels
    with pytest.raises(AssertionError):
        put(Vault(tmp_path / "store"), planned, prepare_shard(planned, 0, labels, delta=delta, group=group))
    assert list((tmp_path / "store" / "shards").iterdir()) == []


def test_shared_perturbations_keep_the_budget(make_source, make_manifest, draw_delta, tmp_path):
    source = make_source()
    planned = make_manifest(source, unit="class", groups=3, norm="l2", epsilon=20.0)
    begin(Vault(tmp_path / "store"), planned)
    delta = draw_delta(source, planned)
    put(Vault(tmp_path / "store"), planned, prepare_shared(planned, delta))
    with pytest.raises(AssertionError, match="position 0"):
        put(Vault(tmp_path / "store"), planned, prepare_shared(planned, delta * 2))


def test_a_full_disk_while_a_shard_is_written(make_source, make_manifest, draw_delta, small_disk):
    source = make_source(1000, shape=(3, 32, 32))
    planned = make_manifest(source, shards=4)
    store = small_disk / "store"
    begin(Vault(store), planned)
    delta = draw_delta(source, planned)
    put(Vault(store), planned, prepare_shard(planned, 0, source.labels[:250], delta=delta[:250]))
    with pytest.raises(StoreError, match=r"disk full while writing 00001-of-00004.h5 \(needs 1 MiB in .*/shards\)"):
        put(Vault(store), planned, prepare_shard(planned, 1, source.labels[250:500], delta=delta[250:500]))
    assert finished_shards(Vault(store), planned) == {0}
    assert [path.name for path in (store / "shards").iterdir()] == ["00000-of-00004.h5"]
