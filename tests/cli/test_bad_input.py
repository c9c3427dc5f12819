"""Bad input gets one clear line with the remedy, exit code 1 or 2, no traceback, and nothing that looks whole."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from hpcule.store.manifest import read_manifest
from hpcule.store.vault import Vault
from hpcule.world.launcher import free_port

SMOKE = ["--preset", "smoke", "--set", "method.epochs=1", "--set", "method.batch=4"]


def images(count: int = 40, size: int = 8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def folder(path: Path, sizes: tuple[int, ...] = (8, 8, 8, 8)) -> Path:
    for number, size in enumerate(sizes):
        place = path / ("cat" if number % 2 else "dog")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images(1, size)[0]).save(place / f"{number}.png")
    return path


def corrupt_png(path: Path) -> Path:
    file = folder(path / "pets") / "cat" / "3.png"
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    return path / "pets"


def unequal_sizes(path: Path) -> Path:
    return folder(path / "pets", (8, 8, 12, 8))


def empty_folder(path: Path) -> Path:
    (path / "empty").mkdir()
    return path / "empty"


def npz(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path / "data.npz", **arrays)
    return path / "data.npz"


def hdf5_nan(path: Path) -> Path:
    with h5py.File(path / "data.h5", "w") as file:
        file["images"] = np.where(np.arange(40 * 192).reshape(40, 8, 8, 3) == 700, np.nan, 0.5)
        file["labels"] = np.arange(40) % 2
    return path / "data.h5"


LABELS = np.arange(40) % 2
MAKERS: dict[str, tuple[Callable[[Path], Path], list[str]]] = {
    "a corrupt PNG": (corrupt_png, ["3.png", "skip_unreadable=true"]),
    "unequal sizes": (unequal_sizes, ["12", "8", "image_size="]),
    "an empty folder": (empty_folder, ["empty"]),
    "too few labels": (lambda p: npz(p, images=images(), labels=LABELS[:39]), ["40", "39"]),
    "NaN in an npz": (lambda p: npz(p, images=np.full((40, 8, 8), np.nan), labels=LABELS), ["NaN", "uint8"]),
    "NaN in HDF5": (hdf5_nan, ["NaN", "uint8"]),
    "NaN labels": (lambda p: npz(p, images=images(), labels=np.full(40, np.nan)), ["label"]),
    "negative labels": (lambda p: npz(p, images=images(), labels=LABELS - 1), ["label"]),
    "pickled objects": (lambda p: npz(p, images=images(), labels=np.array([{}] * 40, object)), ["pickle"]),
    "no labels": (lambda p: npz(p, images=images()), ["labels"]),
    "a single class": (lambda p: npz(p, images=images(), labels=LABELS * 0), ["class"]),
    "no such file": (lambda p: p / "absent.npz", ["absent.npz"]),
    "not an npz": (lambda p: Path(shutil.copy(__file__, p / "text.npz")), ["text.npz"]),
}


@pytest.mark.parametrize("name", MAKERS)
def test_unusable_data(name, tmp_path, run):
    make, expected = MAKERS[name]
    code, _, err = run("craft", "pil", "--data", make(tmp_path), "--out", tmp_path / "store", *SMOKE)
    assert code in (1, 2)
    assert_one_line(err, expected)
    assert not (tmp_path / "store" / "manifest.json").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--set", "method.epsilon=0"], ["epsilon=0", "1 to 127"]),
        (["--set", "method.epsilon=300"], ["epsilon=300", "1 to 127"]),
        (["--set", "method.epsilon=nan"], ["epsilon"]),
        (["--set", "method.epsilom=8"], ["epsilom", "did you mean 'method.epsilon'"]),
        (["--set", "epsilon"], ["NAME=VALUE"]),
        (["--preset", "tiny"], ["tiny", "paper, small, smoke"]),
        (["--set", "store.shards=41"], ["41", "1 to 40"]),
        (["--workers", "2"], ["2 workers", "1 shards"]),
        (["--workers", "0"], ["at least 1"]),
        (["--config", "absent.yaml"], ["absent.yaml"]),
        (["--set", "world.device=cuda"], ["cuda"]),
    ],
)
def test_wrong_use(arguments, expected, tmp_path, run):
    data = npz(tmp_path, images=images(), labels=LABELS)
    code, _, err = run("craft", "pil", "--data", data, "--out", tmp_path / "store", *arguments)
    assert code == 2
    assert all(text in err for text in expected), err
    assert "Traceback" not in err
    assert not (tmp_path / "store" / "manifest.json").exists()


@pytest.mark.parametrize("method", ["emm", "PIL", ""])
def test_unknown_method(method, tmp_path, run):
    code, _, err = run("craft", method, "--data", "digits", "--out", tmp_path / "store")
    assert code == 2
    assert_one_line(err, ["unknown method", "pil"])


def test_output_folder_that_is_not_empty(tmp_path, run):
    data = npz(tmp_path, images=images(), labels=LABELS)
    store = tmp_path / "store"
    store.mkdir()
    (store / "notes.txt").write_text("mine")
    code, _, err = run("craft", "pil", "--data", data, "--out", store, *SMOKE)
    assert code == 2
    assert_one_line(err, ["store is not empty and holds no store"])
    code, _, err = run("craft", "pil", "--data", data, "--out", store, *SMOKE, "--resume")
    assert code == 2, "a stranger's folder is no store to resume"
    assert (store / "notes.txt").read_text() == "mine"
    assert "Traceback" not in err


def test_what_a_start_leaves_that_was_killed_before_its_manifest(tmp_path, run):
    data = npz(tmp_path, images=images(), labels=LABELS)
    store = tmp_path / "store"
    (store / "shards").mkdir(parents=True)
    (store / "run").mkdir()
    (store / ".manifest.json.abcd.partial").write_text("{")
    assert run("craft", "lsp", "--data", data, "--out", store, "--resume")[0] == 0
    assert run("verify", store)[0] == 0


def test_resume_with_other_settings_or_other_data(tmp_path, run):
    data = npz(tmp_path, images=images(), labels=LABELS)
    store = tmp_path / "store"
    assert run("craft", "pil", "--data", data, "--out", store, *SMOKE)[0] == 0
    code, _, err = run("craft", "pil", "--data", data, "--out", store, *SMOKE)
    assert code == 2
    assert_one_line(err, ["store is not empty", "--resume"])
    code, _, err = run("craft", "pil", "--data", data, "--out", store, *SMOKE, "--set", "seed=1", "--resume")
    assert code == 1
    assert_one_line(err, ["another run", "seed is 0, now 1"])
    npz(tmp_path, images=255 - images(), labels=LABELS)
    code, _, err = run("craft", "pil", "--data", data, "--out", store, *SMOKE, "--resume")
    assert code == 1
    assert_one_line(err, ["another run", "other samples"])


def test_resuming_a_complete_store_verifies_it(tmp_path, run):
    data = npz(tmp_path, images=images(), labels=LABELS)
    store = tmp_path / "store"
    assert run("craft", "pil", "--data", data, "--out", store, *SMOKE)[0] == 0
    code, out, _ = run("craft", "pil", "--data", data, "--out", store, *SMOKE, "--resume")
    assert code == 0
    assert "nothing to do" in out
    shard = store / read_manifest(Vault(store)).shards[0].file
    shard.write_bytes(shard.read_bytes()[:-1] + b"\0")
    code, _, err = run("craft", "pil", "--data", data, "--out", store, *SMOKE, "--resume")
    assert code == 1
    assert_one_line(err, ["damaged", shard.name])


def test_evaluate_refuses_what_cannot_be_measured(tmp_path, run):
    data = npz(tmp_path, images=images(), labels=LABELS)
    store = tmp_path / "store"
    assert run("craft", "pil", "--data", data, "--out", store, *SMOKE)[0] == 0
    code, _, err = run("evaluate", store, "--data", data, "--out", tmp_path / "report")
    assert code == 1
    assert_one_line(err, ["test", "--test"])
    other = tmp_path / "other"
    other.mkdir()
    larger = npz(other, images=images(40, 12), labels=LABELS)
    code, _, err = run("evaluate", store, "--data", data, "--test", f"{larger}:all", "--out", tmp_path / "report")
    assert code == 1
    assert "Traceback" not in err
    words = ["--test", f"{larger}:all", "--set", "victim.batch=20", "--out", tmp_path / "report"]
    code, _, err = run("evaluate", store, "--data", larger, *words)
    assert code == 1
    assert_one_line(err, ["not the samples"])
    assert not (tmp_path / "report" / "results.json").exists()


def test_two_launchers_that_contradict_each_other(tmp_path, command, monkeypatch):
    data = npz(tmp_path, images=images(), labels=LABELS)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    monkeypatch.setenv("MASTER_PORT", "29400")
    finished = command("craft", "pil", "--data", data, "--out", tmp_path / "store", "--workers", 3)
    assert finished.returncode == 2
    assert_one_line(finished.stderr, ["--workers 3", "torchrun started 2"])


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A file system of 600 kB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", place], capture_output=True)
    if os.geteuid() != 0 or mounted.returncode:
        pytest.skip("mounting a small file system needs root")
    yield place
    subprocess.run(["umount", place], check=True)


def test_full_disk_then_resume(tmp_path, small_disk, run):
    data = npz(tmp_path, images=images(200, 32), labels=np.arange(200) % 2)
    words = ["craft", "pil", "--data", data, "--out", small_disk / "store", *SMOKE, "--set", "store.shards=4"]
    code, _, err = run(*words)
    assert code == 1
    assert_one_line(err, ["disk full", "--resume"])
    assert not read_manifest(Vault(small_disk / "store")).complete
    assert not list((small_disk / "store").rglob("*.tmp*"))
    subprocess.run(["mount", "-o", "remount,size=10m", small_disk], check=True)
    assert run(*words, "--resume")[0] == 0
    assert run("verify", small_disk / "store", "--data", data)[0] == 0


@pytest.mark.slow
def test_a_full_disk_on_one_node_ends_all_ranks_and_is_named_by_its_own(tmp_path, small_disk, run):
    data = npz(tmp_path, images=images(200, 32), labels=np.arange(200) % 2)
    store = small_disk / "store"
    # Two ghosts, so that both ranks have work.
    sizes = ["--set", "store.shards=4", "--set", "method.batch=64"]
    words = ["craft", "pil", "--data", data, "--out", store, *SMOKE, *sizes]
    assert run(*words)[0] == 1
    subprocess.run(["mount", "-o", "remount,size=10m", small_disk], check=True)
    # Rank 1 sees another, full disk where rank 0 sees room for its shards.
    elsewhere = f"mount -t tmpfs -o size=20k,mode=700 tmpfs {store / 'shards'} && exec "
    line = shlex.join([sys.executable, "-m", "hpcule", *map(str, words), "--resume"])
    environ = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    ranks = [
        subprocess.Popen(command, env={**environ, "RANK": str(rank)}, stderr=subprocess.PIPE, text=True)
        for rank, command in enumerate([["sh", "-c", line], ["unshare", "--mount", "sh", "-c", elsewhere + line]])
    ]
    errors = [rank.communicate(timeout=120)[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [69, 1], errors
    assert_one_line(errors[0], ["rank 0", "lost another rank"])
    assert_one_line(errors[1], ["rank 1", "disk full", "shards", "--resume"])
    assert run(*words, "--resume")[0] == 0
    assert run("verify", store, "--data", data)[0] == 0


def assert_one_line(err: str, expected: list[str]) -> None:
    progress = re.compile(r"hpcule: .* \d+/\d+")
    lines = [line for line in err.splitlines() if line.startswith("hpcule: ") and not progress.match(line)]
    assert len(lines) == 1, err
    assert "Traceback" not in err
    for text in expected:
        assert text in lines[0], f"{text!r} is not in: {lines[0]}"
