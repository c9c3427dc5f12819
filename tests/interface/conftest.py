from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from interface_data import make_images

import hpcule

QUICK = {"world.threads": 1}
"""Settings of every craft here."""


@pytest.fixture(scope="session")
def short_folder() -> Iterator[str]:
    """A temporary folder that lasts as long as the process: multiprocessing keeps the one that it used first."""
    with tempfile.TemporaryDirectory() as folder:
        yield folder


@pytest.fixture(autouse=True)
def private_temporary_folder(short_folder: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """TMPDIR of each test, to see what is left there.

    Its path is short, unlike `tmp_path`: the workers of a DataLoader meet at a socket in it, whose path may have 107
    bytes, and the loader waits for ever where it has more.
    """
    folder = tempfile.mkdtemp(dir=short_folder)
    monkeypatch.setenv("TMPDIR", folder)
    monkeypatch.setattr("tempfile.tempdir", None)
    return Path(folder)


@pytest.fixture(scope="session")
def colours() -> tuple[np.ndarray, np.ndarray]:
    """70 images uint8 [70, 12, 12, 3] and labels."""
    return make_images(70, 12, 3, seed=1)


@pytest.fixture(scope="session")
def colour_npz(tmp_path_factory: pytest.TempPathFactory, colours: tuple[np.ndarray, np.ndarray]) -> Path:
    path = tmp_path_factory.mktemp("data") / "colours.npz"
    tests = make_images(30, 12, 3, seed=2)
    np.savez(path, train_images=colours[0], train_labels=colours[1], test_images=tests[0], test_labels=tests[1])
    return path


@pytest.fixture(scope="session")
def colour_store(tmp_path_factory: pytest.TempPathFactory, colour_npz: Path) -> Path:
    """A store of model-free perturbations by class for `colour_npz`."""
    path = tmp_path_factory.mktemp("stores") / "colours"
    hpcule.craft("lsp", data=colour_npz, out=path, seed=3, settings=QUICK)
    return path
