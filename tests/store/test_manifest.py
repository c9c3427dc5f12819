from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from hpcule.config.errors import StoreError
from hpcule.data.opening import Opening
from hpcule.store.manifest import SharedEntry, plan_shards, read_manifest, write_manifest
from hpcule.store.vault import Vault


@pytest.fixture
def planned(make_source, make_manifest):
    return make_manifest(make_source())


def test_round_trip(tmp_path, planned, make_source, make_manifest):
    shared = make_manifest(make_source(classes=0), unit="cluster", groups=5, applied_at="working", working_size=64)
    for manifest in (planned, shared, replace(planned, epsilon=8, compression="gzip", seed=2**63 - 1)):
        write_manifest(Vault(tmp_path), manifest)
        assert read_manifest(Vault(tmp_path)) == manifest
        assert read_manifest(Vault(tmp_path)).run_key == manifest.run_key


def test_the_manifest_is_private(tmp_path, planned):
    write_manifest(Vault(tmp_path), planned)
    assert (tmp_path / "manifest.json").stat().st_mode & 0o777 == 0o600


def test_run_key_ignores_what_is_known_only_at_the_end(planned):
    written = tuple(replace(entry, bytes=1, sha256="0" * 64) for entry in planned.shards)
    assert replace(planned, complete=True, shards=written, index_sha256="0" * 64).run_key == planned.run_key
    assert len(planned.run_key) == 32


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"epsilon": 9.0},
        {"config": {}},
        {"method": "em"},
        {"reduced": True},
        {"hpcule": "9"},
        {"free_pixels": 1},
    ],
)
def test_run_key_tells_runs_apart(planned, change):
    assert replace(planned, **change).run_key != planned.run_key


def test_shard_names():
    entries = plan_shards(10, [(0, 4), (4, 6)])
    assert [entry.file for entry in entries] == ["shards/00000-of-00002.h5", "shards/00001-of-00002.h5"]
    assert [(entry.first, entry.count) for entry in entries] == [(0, 4), (4, 6)]
    with pytest.raises(AssertionError):
        plan_shards(10, [(0, 4), (5, 5)])


@pytest.mark.parametrize(
    ("epsilon", "norm", "levels", "dtype"),
    [
        (8, "linf", 255, np.int8),
        (127, "linf", 255, np.int8),
        (127.5, "linf", 255, np.int16),
        (255, "linf", 255, np.int16),
        (2056, "linf", 65535, np.int16),
        (65535, "linf", 65535, np.int32),
        (16, "l2", 255, np.int16),
        (255, "l2", 65535, np.int32),
        (1, "l0", 255, np.int16),
    ],
)
def test_delta_dtype_is_the_smallest(planned, epsilon, norm, levels, dtype):
    assert replace(planned, epsilon=epsilon, norm=norm, levels=levels).delta_dtype == dtype


def damage(document, path, value):
    *parents, last = path
    for key in parents:
        document = document[key]
    if value is None:
        del document[last]
    else:
        document[last] = value


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("seed",), None, "the field seed is missing"),
        (("source", "fingerprint"), None, "the field fingerprint is missing"),
        (("shards", 1, "count"), None, "the field count is missing"),
        (("n",), "50", "n is '50', not of type int"),
        (("complete",), 1, "complete is '1', not of type bool"),
        (("seed",), True, "seed is 'True', not of type int"),
        (("shards",), {}, "shards is '{}', not of type list"),
        (("sample_shape",), [3, 6], "not three integers"),
        (("sample_shape",), [3, 0, 5], "are impossible"),
        (("sample_shape",), [3, 10**9, 10**9], "are impossible"),
        (("epsilon",), -1.0, "epsilon is -1.0"),
        (("norm",), "l7", "norm is 'l7'"),
        (("free_pixels",), 10**6, "free_pixels is 1000000"),
        (("free_pixels",), -1, "free_pixels is -1"),
        (("compression",), "blosc", "compression is 'blosc'"),
        (("groups",), 3, "unit is sample and groups 3"),
        (("levels",), 10**6, "levels is 1000000"),
        (("working_size",), 32, "applied_at is native and working_size 32"),
        (("schema",), 0, "schema is 0"),
        (("complete",), True, "size or SHA-256 of shards/00000-of-00004.h5 is missing"),
        (("shards", 0, "file"), "../x", "shard 0 is in '../x'"),
        (("shards", 0, "file"), "/etc/passwd", "shard 0 is in '/etc/passwd'"),
        (("shards", 1, "file"), "shards/00000-of-00004.h5", "shard 1 is in"),
        (("shards", 1, "first"), 11, "from 11 on, where 12 is next"),
        (("shards", 1, "first"), 13, "from 13 on, where 12 is next"),
        (("shards", 3, "count"), 14, "the shards hold 51 samples, not 50"),
        (("shards", 0, "count"), 0, "holds 0 ids"),
        (("shards",), [], "the shards hold 0 samples, not 50"),
    ],
)
def test_hostile_content_is_refused(tmp_path, planned, path, value, message):
    write_manifest(Vault(tmp_path), planned)
    document = json.loads((tmp_path / "manifest.json").read_text())
    damage(document, path, value)
    (tmp_path / "manifest.json").write_text(json.dumps(document))
    with pytest.raises(StoreError) as caught:
        read_manifest(Vault(tmp_path))
    assert message in str(caught.value)
    assert str(tmp_path / "manifest.json") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_shared_file_must_be_the_known_one(tmp_path, make_source, make_manifest):
    manifest = make_manifest(make_source(), unit="class", groups=3)
    for shared in (None, SharedEntry("../shared.h5", 3), SharedEntry("shared.h5", 4)):
        with pytest.raises(ValueError, match=r"shared does not name shared\.h5 with 3 perturbations"):
            write_manifest(Vault(tmp_path), replace(manifest, shared=shared))


def test_no_store(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "gone", tmp_path / "file"):
        with pytest.raises(StoreError, match="no store in"):
            read_manifest(Vault(path))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"schema": NaN}'])
def test_not_a_manifest(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(StoreError, match=r"manifest\.json is damaged"):
        read_manifest(Vault(tmp_path))


def test_a_newer_schema(tmp_path):
    (tmp_path / "manifest.json").write_text('{"schema": 2, "new": true}')
    with pytest.raises(StoreError, match="schema 2, written by a newer hpcule; this one reads schema 1: update hpcule"):
        read_manifest(Vault(tmp_path))


def test_settings_that_an_older_version_lacked_are_at_their_defaults(make_source, make_manifest, tmp_path):
    config = {"image_size": 8, "skip_unreadable": True, "method": {"epsilon": 8.0}}
    planned = make_manifest(make_source(), config=config, applied_at="working", working_size=8)
    write_manifest(Vault(tmp_path), planned)
    assert read_manifest(Vault(tmp_path)).opening == Opening(image_size=8, skip_unreadable=True)


@pytest.mark.parametrize("changed", [{"image_size": 3}, {"image_size": 8, "tile_size": 8}, {"image_size": 16}])
def test_an_opening_that_contradicts_the_store_is_damage(make_source, make_manifest, tmp_path, changed):
    planned = make_manifest(make_source(), applied_at="working", working_size=8)
    write_manifest(Vault(tmp_path), planned)
    path = tmp_path / "manifest.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "config": {**document["config"], **changed}}))
    with pytest.raises(StoreError, match="is damaged"):
        read_manifest(Vault(tmp_path))
