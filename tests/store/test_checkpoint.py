from __future__ import annotations

import pytest
import torch

from hpcule.config.errors import StoreError
from hpcule.store import checkpoint
from hpcule.store.checkpoint import commit, latest, make_folder, remove_all
from hpcule.store.vault import Vault

KEY = "a" * 32


@pytest.fixture
def store(tmp_path):
    return tmp_path / "store"


RANKS = (("shared", "shard-00000"), ("shard-00001",), ())
"""What each rank saves."""


def save(store, step, ranks=RANKS, key=KEY):
    make_folder(Vault(store), step)
    written = []
    for rank, names in enumerate(ranks):
        states = {
            name: {"step": step, "name": name, "x": torch.full((3,), step), "list": [{"a": 1.5}]} for name in names
        }
        written.append(checkpoint.save(Vault(store), step, rank, states))
    if key is not None:
        commit(Vault(store), step, key, [checkpoint.WrittenFile.of(own.plain()) for own in written])


def folders(store):
    return sorted(path.name for path in (store / "run").iterdir())


def test_round_trip(store):
    save(store, 12)
    found = latest(Vault(store), KEY)
    assert found.step == 12
    assert sorted(found.names) == ["shard-00000", "shard-00001", "shared"]
    for name in found.names:
        state = found.load(name)
        assert state.pop("x").tolist() == [12, 12, 12]
        assert state == {"step": 12, "name": name, "list": [{"a": 1.5}]}


def test_a_rank_with_parts_has_one_file(store):
    save(store, 1)
    names = sorted(path.name for path in (store / "run" / "checkpoint-00000001").iterdir())
    assert names == ["COMMIT", "rank-00000.pt", "rank-00001.pt"]


def test_nothing_there(store):
    assert latest(Vault(store), KEY) is None
    remove_all(store)


def test_checkpoints_are_private(store):
    save(store, 1)
    for path in (store / "run" / "checkpoint-00000001").rglob("*"):
        assert path.stat().st_mode & 0o777 == 0o600


def test_the_last_two_are_kept_and_abandoned_ones_go(store):
    save(store, 1)
    save(store, 2, key=None)
    save(store, 3)
    assert folders(store) == ["checkpoint-00000001", "checkpoint-00000003"]
    save(store, 10, key=None)
    save(store, 4)
    assert folders(store) == ["checkpoint-00000003", "checkpoint-00000004", "checkpoint-00000010"]
    assert latest(Vault(store), KEY).step == 4
    save(store, 10)
    save(store, 123456789)
    assert folders(store) == ["checkpoint-00000010", "checkpoint-123456789"]
    assert latest(Vault(store), KEY).step == 123456789
    (store / "run" / "log.jsonl").touch()
    remove_all(store)
    assert folders(store) == ["log.jsonl"]


@pytest.mark.parametrize(
    "damage", ["no commit", "missing part", "short part", "other run", "garbage", "wrong type", "path", "saving again"]
)
def test_what_is_not_whole_is_passed_over(store, damage):
    save(store, 1)
    save(store, 2)
    folder = store / "run" / "checkpoint-00000002"
    part, note = folder / "rank-00001.pt", folder / "COMMIT"
    if damage == "no commit":
        note.unlink()
    elif damage == "missing part":
        part.unlink()
    elif damage == "short part":
        part.write_bytes(part.read_bytes()[:-1])
    elif damage == "other run":
        note.write_text(note.read_text().replace(KEY, "b" * 32))
    elif damage == "garbage":
        note.write_text("{")
    elif damage == "wrong type":
        note.write_text(f'{{"run_key": "{KEY}", "files": {{}}, "parts": ["shared"]}}')
    elif damage == "path":
        note.write_text(note.read_text().replace("rank-00001", "../checkpoint-00000001/rank-00001"))
    else:
        save(store, 2, [["shared"]], key=None)  # the same size as before
    assert latest(Vault(store), KEY).step == 1


@pytest.mark.parametrize("damage", ["zeros", "one bit of a tensor"])
def test_a_damaged_part_is_named(store, damage):
    save(store, 1)
    part = store / "run" / "checkpoint-00000001" / "rank-00000.pt"
    image = bytearray(part.read_bytes())
    values = torch.full((3,), 1).numpy().tobytes()
    if damage == "zeros":
        image = bytearray(len(image))
    else:
        image[image.index(values)] ^= 2
    part.write_bytes(image)
    with pytest.raises(StoreError, match=r"rank-00000\.pt is damaged: remove the folder checkpoint-00000001"):
        latest(Vault(store), KEY).load("shared")


def test_a_part_that_would_run_code_is_refused(store, tmp_path):
    class Hostile:
        def __reduce__(self):
            return (open, (str(tmp_path / "made"), "w"))

    make_folder(Vault(store), 1)
    commit(Vault(store), 1, KEY, [checkpoint.save(Vault(store), 1, 0, {"shared": {"x": Hostile()}})])
    with pytest.raises(StoreError, match=r"rank-00000\.pt is damaged"):
        latest(Vault(store), KEY).load("shared")
    assert not (tmp_path / "made").exists()


def test_a_full_disk(small_disk):
    save(small_disk / "store", 1)
    make_folder(Vault(small_disk / "store"), 2)
    with pytest.raises(StoreError, match=r"disk full while writing rank-00000\.pt"):
        checkpoint.save(Vault(small_disk / "store"), 2, 0, {"shared": {"x": torch.zeros(1 << 20)}})
    assert latest(Vault(small_disk / "store"), KEY).step == 1
