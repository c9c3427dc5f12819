from __future__ import annotations

import signal
import subprocess
import sys
import wave
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
    torch.set_deterministic_debug_mode("default")


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


@pytest.fixture(scope="session")
def small_wavs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """131 training and 40 test recordings of 4 classes, tones in noise of 700 to 900 samples at 8,000 a second."""
    root = tmp_path_factory.mktemp("recordings")
    generator = np.random.default_rng(3)
    for split, count in (("train", 131), ("test", 40)):
        for number in range(count):
            folder = root / split / f"tone{number % 4}"
            folder.mkdir(parents=True, exist_ok=True)
            length = int(generator.integers(700, 901))
            tone = np.sin(2 * np.pi * (300 + 400 * (number % 4)) * np.arange(length) / 8000)
            signal = np.rint(9000 * tone + generator.normal(0, 1500, length)).astype(np.int16)
            with wave.open(str(folder / f"{number:03}.wav"), "wb") as file:
                file.setparams((1, 2, 8000, 0, "NONE", ""))
                file.writeframes(signal.tobytes())
    return root
