from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from hpcule.cli.main import main


@pytest.fixture(autouse=True)
def unchanged_process() -> Iterator[None]:
    """A run sets signal handlers, threads and torch's switches; the next test starts as it was."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)}
    threads = torch.get_num_threads()
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]):
    """Run a command in this process: exit code, standard output, standard error."""

    def call(*arguments: object) -> tuple[int, str, str]:
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as leaving:  # argparse refuses by itself
            code = int(leaving.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def command():
    """Run a command in a process of its own."""

    def call(*arguments: object, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "hpcule", *map(str, arguments)]
        return subprocess.run(line, capture_output=True, text=True, timeout=timeout)

    return call


def make_images(count: int, classes: int, size: int, channels: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Smooth images whose brightness gradient tells the class, with noise: easily learnt, never trivial."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    rows, columns = np.mgrid[0:size, 0:size] / size
    angle = 2 * np.pi * labels / classes
    wave = np.sin(angle)[:, None, None] * rows + np.cos(angle)[:, None, None] * columns
    images = 128 + 60 * wave[..., None] + generator.normal(0, 25, (count, size, size, channels))
    return images.clip(0, 255).round().astype(np.uint8), labels.astype(np.int64)


@pytest.fixture(scope="session")
def small_npz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """131 training and 60 test images 3x16x16 of 4 classes in MedMNIST's layout."""
    path = tmp_path_factory.mktemp("data") / "small.npz"
    train, test = make_images(131, 4, 16, 3, seed=1), make_images(60, 4, 16, 3, seed=2)
    np.savez(path, train_images=train[0], train_labels=train[1], test_images=test[0], test_labels=test[1])
    return path
