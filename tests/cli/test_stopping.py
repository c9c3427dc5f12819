"""Commands that are stopped while they work: they end soon, say how to go on, and go on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.slow
LONG = ["--set", "victim.network=convnet", "--set", "victim.steps=1000000", "--set", "world.threads=1"]


@pytest.fixture
def data(tmp_path):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (90, 16, 16, 3), np.uint8), np.arange(90) % 3
    path = tmp_path / "data.npz"
    np.savez(path, train_images=images, train_labels=labels, test_images=images[:30], test_labels=labels[:30])
    return path


def stopped(folder: Path, words: list[str], sign: str, number: signal.Signals) -> tuple[int, str]:
    """Exit code and last words of a command that gets a signal once it has said `sign`."""
    said = folder / "said"
    with said.open("w") as output:
        command = [sys.executable, "-m", "hpcule", *words]
        process = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        deadline = time.monotonic() + 120
        while sign not in said.read_text():
            assert process.poll() is None, said.read_text()
            assert time.monotonic() < deadline, said.read_text()
            time.sleep(0.1)
        process.send_signal(number)
        code = process.wait(30)
    finally:
        process.kill()
        process.wait()
    assert "Traceback" not in said.read_text()
    return code, said.read_text().splitlines()[-1]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_recommend_stops_while_a_victim_trains(data, tmp_path, workers):
    words = ["recommend", "--data", str(data), "--out", str(tmp_path / "out"), "--budget", "60", "--workers", workers]
    words += ["--set", "methods=[lsp]", *LONG]
    code, last = stopped(tmp_path, words, "clean, seed 0", signal.SIGTERM)
    assert code == 75
    assert last.startswith("hpcule: stopped by SIGTERM: run the same command again")


def test_train_stops_at_ctrl_c(data, tmp_path):
    words = ["train", "--data", str(data), "--out", str(tmp_path / "out"), *LONG]
    assert stopped(tmp_path, words, "training", signal.SIGINT) == (130, "hpcule: interrupted")
    assert not (tmp_path / "out" / "results.json").exists()
