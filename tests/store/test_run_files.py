"""Damages in STORE/run, which holds settings and the records of exports."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcule.config.tree import dump_yaml
from hpcule.publish.collection import Record
from hpcule.publish.hashes import FileHash
from hpcule.publish.records import keep_records
from hpcule.store.seal import Key
from hpcule.store.vault import Vault
from hpcule.store.verify import verify

SETTINGS = {
    "seed": 4711,
    "precision": "auto",
    "method": {"name": "pil", "epsilon": 8.0, "checkpoint": "/somewhere/weights.pt", "layers": [1, 2]},
    "world": {"threads": 3},
    "data": "/somewhere/else",
    "image_size": None,
}
STATED = {
    **{name: value for name, value in SETTINGS.items() if name not in ("world", "data")},
    "precision": "fp32",
    "method": {**SETTINGS["method"], "checkpoint": "sha256:1234", "layers": (1, 2)},
}


def settings_of(store: Path, tree: dict, key: Key | None = None) -> None:
    Vault(store, key).write("run/config.yaml", dump_yaml(tree).encode())


def found(store: Path, key: Key | None = None) -> list[tuple[str, str]]:
    return [(damage.kind, damage.file) for damage in verify(Vault(store, key))]


@pytest.fixture(params=[False, True])
def key(request) -> Key | None:
    return Key(bytes(range(32))) if request.param else None


def test_settings_as_they_were(make_source, make_store, key):
    store, *_ = make_store(make_source(), config=STATED, key=key)
    settings_of(store, SETTINGS, key)
    assert found(store, key) == []
    settings_of(store, {**SETTINGS, "world": {"threads": 8}, "data": "/moved"}, key)
    assert found(store, key) == [], "where it ran and where the data are is not part of the result"


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 4712},
        {"method": {**SETTINGS["method"], "epsilon": 1.0}},
        {"method": {**SETTINGS["method"], "layers": [1, 3]}},
        {"method": {"name": "pil"}},
        {"precision": "bf16"},
        {"more": 1},
        {"image_size": 32},
    ],
)
def test_settings_that_were_changed(make_source, make_store, key, change):
    store, *_ = make_store(make_source(), config=STATED, key=key)
    settings_of(store, {**SETTINGS, **change}, key)
    assert found(store, key) == [("settings", "run/config.yaml")]


@pytest.mark.parametrize("text", [b"\xff", b"- 1\n", b"a: [", b"seed: 1\nseed: 1\n", b""])
def test_settings_that_are_none(make_source, make_store, text):
    store, *_ = make_store(make_source(), config=STATED)
    Vault(store).write("run/config.yaml", text)
    assert found(store) == [("settings", "run/config.yaml")]


@pytest.fixture
def exported(make_source, make_store) -> Path:
    store, *_ = make_store(make_source())
    for content in "12":
        record = Record("", "a", "b", True, content, {})
        keep_records(store, [FileHash("a.png", 1, content * 64)], [record], {"format": "folder"})
    assert found(store) == []
    return store


@pytest.mark.parametrize("ending", [".csv", ".sha256", ".json"])
@pytest.mark.parametrize("damage", ["changed", "gone"])
def test_records_of_exports(exported, ending, damage):
    for path in sorted((exported / "run" / "exports").glob(f"*{ending}")):
        before = path.read_bytes()
        if damage == "gone":
            path.unlink()
        elif ending == ".json":
            path.write_bytes(before.replace(b'"records_sha256": "', b'"records_sha256": "0'))
        else:
            path.write_bytes(before.replace(b"a", b"b", 1))
        kinds = {kind for kind, _ in found(exported)}
        assert kinds == {"export"}, path
        path.write_bytes(before)
        path.chmod(0o600)
    assert found(exported) == []


@pytest.mark.parametrize("name", ["export.csv", "export.sha256"])
def test_records_of_the_last_export(exported, name):
    path = exported / "run" / name
    path.write_bytes(path.read_bytes().replace(b"a", b"b", 1))
    assert found(exported) == [("export", f"run/{name}")]


@pytest.mark.parametrize("name", ["copy", "run/notes.txt", "run/exports/notes.txt", ".x.partial"])
def test_what_does_not_belong_there(exported, name):
    (exported / name).write_text("mine")
    (exported / name).chmod(0o600)
    assert found(exported) == [("extra", name)]


def test_logs_lock_and_notes_are_not_looked_at(exported):
    for name in ("log-00000.jsonl", "lock", "shard-00000.json", "date-shifts.json"):
        (exported / "run" / name).write_text("anything")
        (exported / "run" / name).chmod(0o600)
    assert found(exported) == []
