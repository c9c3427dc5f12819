"""Stores that others may read: a line on standard error, or, with --strict, nothing at all."""

from __future__ import annotations

import pytest

TRAINING = ["--set", "victim.epochs=1", "--set", "victim.network=convnet", "--set", "world.threads=1"]
VERBS = {
    "export": [],
    "train": TRAINING,
    "evaluate": ["--suite", "quick"],
    "compare": [],
    "certify": [],
    "distance": [],
    "recover": [],
    "probe strip": [],
}


@pytest.fixture
def open_store(small_npz, tmp_path, run):
    store = tmp_path / "store"
    assert run("craft", "classwise", "--data", small_npz, "--out", store)[0] == 0
    store.chmod(0o755)
    return store


def words(verb, store, data, out):
    named = ["--store", store] if verb == "train" else [store]
    return [*verb.split(), *named, "--data", data, "--out", out, *VERBS[verb]]


def remedy(store):
    return f"hpcule: others may read {store} (mode 0755): chmod -R go= {store}\n"


@pytest.mark.parametrize("verb", VERBS)
def test_strict_refuses(open_store, small_npz, tmp_path, run, verb):
    code, _, told = run(*words(verb, open_store, small_npz, tmp_path / "out"), "--strict")
    assert code == 1
    assert told == remedy(open_store)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("verb", ["export", "train"])
def test_a_warning_and_the_work_is_done(open_store, small_npz, tmp_path, run, verb):
    command = words(verb, open_store, small_npz, tmp_path / "out")
    code, _, told = run(*command)
    assert code == 0
    assert told.count(remedy(open_store)) == 1
    open_store.chmod(0o700)
    code, _, told = run(*command[:-1], command[-1], "--out", tmp_path / "again", "--strict")
    assert code == 0
    assert "others may read" not in told


@pytest.mark.slow
def test_a_craft_warns_once_and_closes_the_folder(open_store, small_npz, command):
    again = ["craft", "classwise", "--data", small_npz, "--out", open_store, "--resume", "--workers", "2"]
    refused = command(*again, "--strict")
    assert refused.returncode == 1
    assert refused.stderr == remedy(open_store)
    finished = command(*again)
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr.count("others may read") == 1
    assert open_store.stat().st_mode & 0o777 == 0o700
