"""Commands that are stopped while they work: they end soon, say how to go on, and go on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hpcule.store.state import unpack_state

pytestmark = pytest.mark.slow
SAVED = "saved: run the same command again to continue"
LONG = [
    *("--set", "victim.network=convnet", "--set", "victim.batch=30", "--set", "victim.steps=1000000"),
    *("--set", "world.threads=1"),
]


@pytest.fixture
def data(tmp_path):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (90, 16, 16, 3), np.uint8), np.arange(90) % 3
    path = tmp_path / "data.npz"
    np.savez(path, train_images=images, train_labels=labels, test_images=images[:30], test_labels=labels[:30])
    return path


def stopped(folder: Path, words: list[str], ready: Callable[[str], bool], number: signal.Signals) -> tuple[int, str]:
    """Exit code and last words of a command that gets a signal once it is ready, by what it has said."""
    said = folder / "said"
    with said.open("w") as output:
        command = [sys.executable, "-m", "hpcule", *words]
        process = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        deadline = time.monotonic() + 120
        while not ready(said.read_text()):
            assert process.poll() is None, said.read_text()
            assert time.monotonic() < deadline, said.read_text()
            time.sleep(0.1)
        process.send_signal(number)
        code = process.wait(30)
    finally:
        process.kill()
        process.wait()
    assert "Traceback" not in said.read_text()
    return code, said.read_text().rstrip().rpartition("\n")[2]


def says(sign: str) -> Callable[[str], bool]:
    return lambda said: sign in said


@pytest.mark.parametrize("workers", ["1", "2"])
def test_recommend_stops_while_a_victim_trains(data, tmp_path, workers):
    words = ["recommend", "--data", str(data), "--out", str(tmp_path / "out"), "--budget", "60", "--workers", workers]
    words += ["--set", "methods=[lsp]", "--set", "recipes=[plain]", *LONG]
    code, last = stopped(tmp_path, words, says("clean, seed 0"), signal.SIGTERM)
    assert code == 75
    assert last == f"hpcule: stopped by SIGTERM, {SAVED}"
    assert list((tmp_path / "out" / "cells").glob("*.checkpoint"))


def test_train_stops_at_ctrl_c(data, tmp_path):
    words = ["train", "--data", str(data), "--out", str(tmp_path / "out"), *LONG]
    code, last = stopped(tmp_path, words, says("training"), signal.SIGINT)
    assert (code, last) == (75, f"hpcule: stopped by SIGINT, {SAVED}")
    assert [path.suffix for path in (tmp_path / "out").iterdir()] == [".checkpoint"]


def test_a_study_stops_while_a_victim_trains(data, tmp_path):
    study = {"name": "long", "data": str(data), "method": "lsp", "preset": "smoke", "seeds": [0]}
    study |= {"victim": {"network": "convnet", "steps": 1000000, "batch": 30}, "world": {"threads": 1}}
    (tmp_path / "study.yaml").write_text(json.dumps(study))
    out = tmp_path / "out"
    words = ["study", "run", str(tmp_path / "study.yaml"), "--out", str(out)]
    code, last = stopped(tmp_path, words, says("victims 1/"), signal.SIGUSR2)
    assert (code, last) == (75, f"hpcule: stopped by SIGUSR2, {SAVED}")
    assert not list((out / "failed").iterdir())
    assert len(list((out / "done").glob("*.checkpoint"))) == 1


def trained(words: list[str], out: Path) -> dict[str, object]:
    subprocess.run([sys.executable, "-m", "hpcule", *words, "--out", str(out)], check=True, capture_output=True)
    assert sorted(path.name for path in out.iterdir()) == ["config.yaml", "results.json"]
    return {**json.loads((out / "results.json").read_text()), "seconds": None, "workers": None}


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_killed_training_goes_on_from_its_last_checkpoint(data, tmp_path, workers):
    words = ["train", "--data", str(data), "--workers", workers, "--set", "victim.network=convnet"]
    words += ["--set", "victim.epochs=20", "--set", "victim.batch=30", "--set", "victim.countermeasures=[crop-flip]"]
    words += ["--set", "world.checkpoint_seconds=0", "--set", "world.threads=1"]
    out = tmp_path / "out"

    def has_saved(said: str) -> bool:
        return any(out.glob("*.checkpoint"))

    code, _ = stopped(tmp_path, [*words, "--out", str(out)], has_saved, signal.SIGKILL)
    assert code == -signal.SIGKILL
    time.sleep(1)  # ranks die with the process that started them, and write no more
    (saved,) = out.glob("*.checkpoint")
    assert 0 < unpack_state(saved.read_bytes())["result"]["steps"] < 60
    assert trained(words, out) == trained(words, tmp_path / "undisturbed")
