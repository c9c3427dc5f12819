from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import h5py
import numpy as np
import pytest

from hpcule.store.files import sha256_file
from hpcule.store.manifest import write_manifest
from hpcule.store.vault import Vault
from hpcule.store.verify import verify
from hpcule.store.write import begin

SHARD = "shards/00002-of-00004.h5"
KINDS = [{}, {"norm": "l2", "epsilon": 30.0}, {"unit": "cluster", "groups": 4}, {"compression": "gzip"}]


def only_problem(store, source=None):
    found = verify(Vault(store), source)
    assert len(found) == 1, found
    assert "\n" not in found[0].message
    return found[0]


def flip(path, position):
    data = bytearray(path.read_bytes())
    data[position] ^= 0x10
    path.write_bytes(data)


def edit(store, name, row, value, file=SHARD):
    with h5py.File(store / file, "r+") as opened:
        opened[name][row] = value


@pytest.mark.parametrize("settings", KINDS)
@pytest.mark.parametrize("classes", [0, 3])
def test_a_sound_store(make_source, make_store, settings, classes):
    source = make_source(classes=classes)
    store, *_ = make_store(source, **settings)
    assert verify(Vault(store)) == []
    assert verify(Vault(store), source) == []


def test_no_store(tmp_path):
    assert only_problem(tmp_path).kind == "manifest"


def test_incomplete(make_source, make_manifest, tmp_path):
    begin(Vault(tmp_path / "store"), make_manifest(make_source()))
    problem = only_problem(tmp_path / "store")
    assert (problem.kind, problem.file) == ("incomplete", "manifest.json")
    assert "4 of 4 shards are missing" in problem.message


def test_missing(make_source, make_store):
    store, *_ = make_store(make_source())
    (store / SHARD).unlink()
    problem = only_problem(store)
    assert (problem.kind, problem.file) == ("missing", SHARD)
    assert str(problem).startswith(f"{SHARD}: missing")


@pytest.mark.parametrize("cut", [0, 10, 3000, -1])
def test_truncated(make_source, make_store, cut):
    store, manifest, *_ = make_store(make_source())
    (store / SHARD).write_bytes((store / SHARD).read_bytes()[:cut])
    problem = only_problem(store)
    assert (problem.kind, problem.file) == ("size", SHARD)
    assert problem.message.startswith("truncated")
    assert f"{manifest.shards[2].bytes} were written" in problem.message


def test_longer_than_written(make_source, make_store):
    store, *_ = make_store(make_source())
    with (store / SHARD).open("ab") as file:
        file.write(b"x")
    assert only_problem(store).kind == "size"


def test_a_flipped_byte_anywhere(make_source, make_store):
    store, manifest, *_ = make_store(make_source())
    whole = (store / SHARD).read_bytes()
    # The attribute that holds the key: what changes it, or its name, makes a shard of another run.
    name, key = whole.index(b"run_key"), whole.index(manifest.run_key.encode())
    for position in np.random.default_rng(0).integers(0, len(whole), 60).tolist():
        flip(store / SHARD, position)
        problem = only_problem(store)
        assert problem.file == SHARD
        assert problem.kind == "checksum" or (problem.kind == "other run" and name <= position < key + 32), position
        (store / SHARD).write_bytes(whole)
    assert verify(Vault(store)) == []


@pytest.mark.parametrize("settings", KINDS)
@pytest.mark.parametrize("signed", [False, True])
def test_a_shard_of_another_run(make_source, make_store, sign_again, settings, signed):
    store, manifest, *_ = make_store(make_source(), **settings)
    other, *_ = make_store(make_source(), name="other", seed=2, config={"other": 1}, **settings)
    (store / SHARD).write_bytes((other / SHARD).read_bytes())
    if signed:
        sign_again(store, manifest, SHARD)
    problem = only_problem(store)
    assert (problem.kind, problem.file) == ("other run", SHARD)


def test_a_shard_of_another_run_of_another_size(make_source, make_store):
    store, *_ = make_store(make_source())
    other, *_ = make_store(make_source(500, shape=(3, 9, 9)), name="other")
    (store / SHARD).write_bytes((other / SHARD).read_bytes())
    assert only_problem(store).kind == "other run"


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("value", [9, -9])
def test_budget_exceeded_by_one_level(make_source, make_store, sign_again, value, signed):
    store, manifest, *_ = make_store(make_source())
    edit(store, "delta", (4, 1, 2, 3), value)
    if signed:
        sign_again(store, manifest, SHARD)
    problem = only_problem(store)
    assert (problem.kind, problem.file) == ("budget", SHARD)
    assert "sample 29 is changed by 9 levels (L-infinity), 8 are allowed" in problem.message


def test_l2_budget(make_source, make_store, sign_again):
    store, manifest, *_ = make_store(make_source(), norm="l2", epsilon=30.0)
    row = np.zeros((3, 6, 5))
    row[0, 0, :2] = 24, 18
    edit(store, "delta", 4, row)
    sign_again(store, manifest, SHARD)
    assert verify(Vault(store)) == []
    row[0, 0, 2] = 8
    edit(store, "delta", 4, row)
    sign_again(store, manifest, SHARD)
    problem = only_problem(store)
    assert problem.kind == "budget"
    assert "sample 29 is changed by 31.0483 levels (L2), 30 are allowed" in problem.message


def test_a_pixel_that_is_free(make_source, make_store, sign_again):
    store, manifest, *_ = make_store(make_source(), free_pixels=1)
    edit(store, "delta", (4, slice(None), 2, 3), 255)
    sign_again(store, manifest, SHARD)
    assert [problem.kind for problem in verify(Vault(store))] == []
    edit(store, "delta", (4, 1, 0, 0), 9)
    sign_again(store, manifest, SHARD)
    assert (
        "sample 29 is changed by 9 levels (L-infinity), 8 are allowed apart from 1 free" in only_problem(store).message
    )


@pytest.mark.parametrize(
    ("value", "message"), [(30, "row 4 has id 30, where 29 belongs"), (10**6, "row 4 has id 1000000")]
)
def test_ids_not_exactly_once(make_source, make_store, sign_again, value, message):
    store, manifest, *_ = make_store(make_source())
    edit(store, "id", 4, value)
    sign_again(store, manifest, SHARD)
    problem = only_problem(store)
    assert (problem.kind, problem.file) == ("ids", SHARD)
    assert message in problem.message


def test_shards_in_each_others_place(make_source, make_store, sign_again):
    store, manifest, *_ = make_store(make_source(48))
    one, two = store / manifest.shards[0].file, store / manifest.shards[1].file
    one.rename(store / "aside")
    two.rename(one)
    (store / "aside").rename(two)
    assert [problem.kind for problem in verify(Vault(store))] == ["ids", "ids"]


@pytest.mark.parametrize("value", [-1, 4])
def test_group_outside(make_source, make_store, sign_again, value):
    store, manifest, *_ = make_store(make_source(), unit="cluster", groups=4)
    edit(store, "group", 4, value)
    sign_again(store, manifest, SHARD)
    problem = only_problem(store)
    assert (problem.kind, problem.file) == ("group", SHARD)
    assert f"sample 29 is in group {value}, outside 0..3" in problem.message


@pytest.mark.parametrize("change", ["dtype", "shape", "absent", "group"])
def test_wrong_layout(make_source, make_store, sign_again, change):
    store, manifest, delta, _ = make_store(make_source())
    with h5py.File(store / SHARD, "r+") as file:
        del file["delta"]
        if change == "dtype":
            file["delta"] = delta[25:37].astype(np.int16)
        elif change == "shape":
            file["delta"] = delta[25:36]
        elif change == "group":
            file.create_group("delta")
    sign_again(store, manifest, SHARD)
    problem = only_problem(store)
    assert (problem.kind, problem.file) == ("layout", SHARD)
    assert "dataset delta is" in problem.message


def test_unreadable(make_source, make_store, sign_again):
    store, manifest, *_ = make_store(make_source())
    (store / SHARD).write_bytes(b"not HDF5")
    sign_again(store, manifest, SHARD)
    problem = only_problem(store)
    assert (problem.kind, problem.file) == ("unreadable", SHARD)


@pytest.mark.parametrize("damage", ["missing", "size", "checksum", "other run", "budget", "layout", "unreadable"])
def test_shared_perturbations(make_source, make_store, sign_again, damage):
    source = make_source()
    store, manifest, delta, _ = make_store(source, unit="cluster", groups=4)
    path = store / "shared.h5"
    whole = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "size":
        path.write_bytes(whole[:-5])
    elif damage == "checksum":
        flip(path, whole.index(delta[2].tobytes()))
    elif damage == "other run":
        other, *_ = make_store(source, name="other", unit="cluster", groups=4, seed=2, method="em")
        path.write_bytes((other / "shared.h5").read_bytes())
    elif damage == "budget":
        edit(store, "delta", (3, 0, 0, 0), 9, "shared.h5")
    elif damage == "layout":
        with h5py.File(path, "r+") as file:
            del file["delta"]
    else:
        path.write_bytes(b"not HDF5")
    if damage in ("layout", "unreadable"):
        sign_again(store, manifest, "shared.h5")
    problem = only_problem(store)
    assert (problem.kind, problem.file) == (damage, "shared.h5")
    if damage == "budget":
        assert "group 3 is changed by 9 levels" in problem.message


@pytest.mark.parametrize("damage", ["missing", "other shards", "garbage", "plain", "zeros", "name that is no text"])
def test_a_virtual_master_that_misleads(make_source, make_store, damage):
    store, manifest, delta, _ = make_store(make_source())
    index = store / "index.h5"
    if damage == "missing":
        index.unlink()
    elif damage == "other shards":
        other, *_ = make_store(make_source(), name="other", shards=5)
        index.write_bytes((other / "index.h5").read_bytes())
    elif damage == "garbage":
        index.write_bytes(b"not HDF5")
    elif damage == "zeros":
        half = index.stat().st_size // 2
        index.write_bytes(index.read_bytes()[:half] + bytes(half))
    elif damage == "name that is no text":
        with h5py.File(index, "r+") as file:
            file.id.links.move(b"delta", file.id, b"\xff\xfe")
        write_manifest(Vault(store), replace(manifest, index_sha256=sha256_file(index)))
    else:
        with h5py.File(index, "r+") as file:
            del file["delta"]
            file["delta"] = delta
    problem = only_problem(store)
    assert (problem.kind, problem.file) == ("index", "index.h5")


@pytest.mark.parametrize(
    "harm", [pytest.param("keeps the HDF5 library busy", marks=pytest.mark.slow), "crashes the HDF5"]
)
def test_a_virtual_master_that_harms_its_reader(make_source, make_store, harm):
    """In a process of its own, which the HDF5 library could keep busy without end, or crash."""
    store, manifest, *_ = make_store(make_source())
    index = store / "index.h5"
    content = bytearray(index.read_bytes())
    if "busy" in harm:
        first = content.index(b"GCOL") + 16
        content[first : first + 16] = bytes(16)  # an object of no bytes: the next one is the same
    else:
        rank = content.index(bytes([0x28, 0, 0, 0, 4, 0, 0, 0])) + 4
        content[rank : rank + 4] = (2052).to_bytes(4, "little")
    index.write_bytes(content)
    write_manifest(Vault(store), replace(manifest, index_sha256=sha256_file(index)))
    code = "import sys; from hpcule.cli.main import main; sys.exit(main(['verify', sys.argv[1]]))"
    verified = subprocess.run([sys.executable, "-c", code, store], capture_output=True, text=True, timeout=300)
    assert verified.returncode == 1, verified
    assert f"index.h5: unreadable (reading it {harm}" in verified.stdout + verified.stderr


def test_unknown_files(make_source, make_store):
    store, *_ = make_store(make_source())
    (store / "shards" / "00004-of-00005.h5").touch(mode=0o600)
    problem = only_problem(store)
    assert (problem.kind, problem.file) == ("extra", "shards/00004-of-00005.h5")


@pytest.mark.parametrize(("name", "mode"), [(".", 0o750), ("shards", 0o701), (SHARD, 0o640), ("manifest.json", 0o604)])
def test_loose_permissions(make_source, make_store, name, mode):
    source = make_source()
    store, *_ = make_store(source)
    (store / name).chmod(mode)
    problem = only_problem(store, source)
    assert (problem.kind, problem.file) == ("permissions", name)
    assert f"mode {mode:04o}, others" in problem.message
    (store / "run").chmod(0o755)
    assert "and 1 more" in only_problem(store, source).message


def test_each_damage_has_one_message(make_source, make_store):
    store, manifest, *_ = make_store(make_source())
    files = [store / entry.file for entry in manifest.shards]
    files[0].unlink()
    flip(files[1], 3000)
    edit(store, "delta", (0, 0, 0, 0), -9)
    files[3].write_bytes(b"")
    assert [problem.kind for problem in verify(Vault(store))] == ["missing", "checksum", "budget", "size"]


@pytest.mark.parametrize("settings", KINDS)
def test_another_source(make_source, make_store, settings):
    source = make_source()
    store, *_ = make_store(source, **settings)
    assert only_problem(store, make_source(51)).kind == "source"
    assert only_problem(store, make_source(shape=(3, 5, 6))).kind == "source"
    assert only_problem(store, make_source(dtype=np.uint16)).kind == "source"
    other = make_source()
    other.samples[44, 0, 0, 0] ^= 1
    problem = only_problem(store, other)
    assert problem.kind == "source"
    assert "fingerprint differs" in problem.message


def test_other_labels(make_source, make_store):
    store, *_ = make_store(make_source())
    other = make_source()
    other.labels[29] += 1
    problem = only_problem(store, other)
    assert (problem.kind, problem.file) == ("labels", SHARD)
    assert problem.message.startswith("sample 29 has label")
    assert only_problem(store, make_source(classes=0)).kind == "labels"


@pytest.mark.parametrize(("pixel", "value"), [(255, 3), (0, -3)])
def test_clean_plus_delta_off_the_grid(make_source, make_store, sign_again, pixel, value):
    source = make_source()
    source.samples[29, 0, 0, 0] = pixel
    store, manifest, *_ = make_store(source)
    edit(store, "delta", (4, 0, 0, 0), value)
    sign_again(store, manifest, SHARD)
    assert verify(Vault(store)) == []
    problem = only_problem(store, source)
    assert (problem.kind, problem.file) == ("grid", SHARD)
    assert f"sample 29: clean + delta reaches {pixel + value}, off the grid 0..255" in problem.message


def test_an_edited_budget_is_another_run(make_source, make_store):
    """Whoever loosens epsilon in the manifest loses the tie to the shards."""
    store, manifest, *_ = make_store(make_source())
    write_manifest(Vault(store), replace(manifest, epsilon=9.0))
    assert {problem.kind for problem in verify(Vault(store))} == {"other run"}
