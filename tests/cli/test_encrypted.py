"""Encrypted stores on the command line: the same result, with the key and never without it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from leaks import leaks

from hpcule.store.keys import read_key
from hpcule.store.manifest import read_manifest
from hpcule.store.read import StoreReader
from hpcule.store.seal import is_sealed
from hpcule.store.vault import Vault

EM = ["method.ghost=10", "method.surrogate=convnet", "method.batch=48", "method.model_steps=3", "method.max_rounds=2"]
RUNS = {
    "em": ["deterministic=true", "store.shards=7", "method.noise_steps=3", "method.stop_error=0", *EM],
    "classwise": ["deterministic=true", "seed=1"],
}
PLAIN_BY_NATURE = ("log-", "lock", "export")
"""Files of run/ that hold neither seed nor delta, and are not encrypted."""


def words(method, data, out, *more):
    settings = [word for setting in RUNS[method] for word in ("--set", setting)]
    return ["craft", method, "--data", data, "--out", out, *settings, *more]


@pytest.fixture
def key(run, tmp_path):
    assert run("key", tmp_path / "owner.key")[0] == 0
    return tmp_path / "owner.key"


def deltas(store, key=None):
    with StoreReader(Vault(store, read_key(str(key)) if key else None)) as reader:
        return reader.delta(np.arange(reader.manifest.n))


def check_sealed(store, key):
    opened = [path.relative_to(store / "run") for path in store.rglob("*") if path.is_file() and not is_sealed(path)]
    assert all(path.parts[0].startswith(PLAIN_BY_NATURE) for path in opened), opened
    manifest = read_manifest(Vault(store, read_key(str(key))))
    needles = {"run key": manifest.run_key.encode(), "seed": f"seed: {manifest.seed}".encode()}
    assert leaks(store, needles) == set()


@pytest.mark.slow
@pytest.mark.parametrize("method", RUNS)
def test_the_same_copy_comes_of_it(method, small_npz, tmp_path, run, command, key):
    plain, sealed = tmp_path / "plain", tmp_path / "sealed"
    assert run(*words(method, small_npz, plain))[0] == 0
    finished = command(*words(method, small_npz, sealed, "--key", key, "--workers", "2"))
    assert finished.returncode == 0, finished.stderr
    check_sealed(sealed, key)
    assert np.array_equal(deltas(plain), deltas(sealed, key))
    assert run(*words(method, small_npz, sealed, "--key", key, "--resume"))[1].endswith("nothing to do.\n")
    assert run("verify", sealed, "--data", small_npz, "--key", key)[0] == 0
    for store, *more in ((plain,), (sealed, "--key", key)):
        assert run("export", store, "--data", small_npz, "--out", tmp_path / f"{store.name}-copy", *more)[0] == 0
    copies = [(path / "run" / "export.sha256").read_bytes() for path in (plain, sealed)]
    assert copies[0] == copies[1]
    check_sealed(sealed, key)


def test_a_victim_learns_from_it(stores, small_npz, run):
    small = ["--set", "victim.epochs=1", "--set", "victim.network=convnet", "--set", "world.threads=1"]
    train = ["train", "--store", stores / "sealed", "--data", small_npz, "--out", stores / "train", *small]
    code, _, told = run(*train, "--key", stores / "owner.key")
    assert code == 0, told


@pytest.mark.slow
def test_killed_and_resumed(small_npz, tmp_path, run, command, key):
    plain, sealed = tmp_path / "plain", tmp_path / "sealed"
    assert run(*words("em", small_npz, plain))[0] == 0
    start = words("em", small_npz, sealed, "--key", key, "--resume", "--set", "world.checkpoint_seconds=0")
    line = [sys.executable, "-m", "hpcule", *map(str, start)]
    running = subprocess.Popen(line, stderr=subprocess.PIPE, start_new_session=True)
    while running.poll() is None and not list((sealed / "run").glob("checkpoint-*/COMMIT")):
        time.sleep(0.005)
    os.killpg(running.pid, signal.SIGKILL)
    running.communicate(timeout=60)
    assert running.returncode == -signal.SIGKILL, "the run had finished before the kill"
    assert list((sealed / "run").glob("checkpoint-*/*.pt"))
    check_sealed(sealed, key)
    resume = words("em", small_npz, sealed, "--resume")
    code, _, told = run(*resume)
    assert (code, told) == (1, f"hpcule: {sealed} is encrypted: name its key with --key\n")
    finished = command(*resume, "--key", key, "--workers", "2")
    assert finished.returncode == 0, finished.stderr
    assert np.array_equal(deltas(plain), deltas(sealed, key))


@pytest.fixture
def stores(small_npz, tmp_path, run, key):
    """One in the clear and one encrypted, with a key of another store beside them."""
    assert run(*words("classwise", small_npz, tmp_path / "plain"))[0] == 0
    assert run(*words("classwise", small_npz, tmp_path / "sealed", "--key", key))[0] == 0
    assert run("key", tmp_path / "other.key")[0] == 0
    return tmp_path


REFUSED = {
    "no key": ("sealed", [], "is encrypted: name its key with --key"),
    "another key": ("sealed", ["--key", "other.key"], "is encrypted with another key"),
    "a key too many": ("plain", ["--key", "owner.key"], "plain is not encrypted: leave --key out"),
    "no such key": ("sealed", ["--key", "absent.key"], "make one with `hpcule key absent.key`"),
}
VERBS = {
    "verify": lambda store: ["verify", store],
    "export": lambda store: ["export", store, "--out", "copy"],
    "train": lambda store: ["train", "--store", store, "--out", "out"],
    "evaluate": lambda store: ["evaluate", store, "--out", "out"],
    "craft": lambda store: words("classwise", "", store, "--resume"),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("verb", VERBS)
def test_refused_on_one_line(stores, small_npz, run, monkeypatch, verb, case):
    monkeypatch.chdir(stores)
    store, key, message = REFUSED[case]
    code, _, told = run(*VERBS[verb](store), "--data", small_npz, *key)
    assert code in (1, 2)
    assert message in told
    assert told.count("\n") == 1
    assert not Path("copy").exists()
    assert not Path("out").exists()


def test_a_job_gets_the_name_of_the_key_and_not_the_key(small_npz, tmp_path, run, key, monkeypatch):
    pytest.importorskip("submitit", reason="needs the extra 'slurm'")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "site.yaml").write_text("nodes: 1\ntasks_per_node: 2\n")
    start = words("classwise", small_npz, "store", "--key", key, "--submit", "site.yaml", "--dry-run")
    code, script, told = run(*start)
    assert code == 0, told
    assert f"--key {key}" in script
    assert key.read_text().strip() not in script
