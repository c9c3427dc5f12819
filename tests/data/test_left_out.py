"""How many of how many files are left out, by reason, and files of other kinds among them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hpcule.data.left_out import left_out_notice, why_left_out
from hpcule.data.opening import Opening


def pictures(root: Path, names: list[str]) -> None:
    rng = np.random.default_rng(0)
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)).save(root / name)


def spoil(root: Path, *names: str) -> None:
    for name in names:
        data = (root / name).read_bytes()
        (root / name).write_bytes(data[: len(data) // 2 + len(name)])


@pytest.fixture
def folder(tmp_path) -> Path:
    root = tmp_path / "in"
    pictures(root, [f"{label}/{k}.png" for label in "ab" for k in range(10)])
    spoil(root, "a/1.png", "a/2.png", "b/3.png", "b/4.png")
    for name in ("a/5.png", "b/6.png"):
        (root / name).write_text("no image at all")
    for name in ("a/notes.txt", "a/more.TXT", "b/film.mp4", "b/README", "b/.hidden", "list.csv", "b/9_mask.tmp"):
        (root / name).write_text("x")
    return root


SETTINGS = {"skip_unreadable": True, "exclude": ("*7.png", "*_mask*")}


@pytest.mark.parametrize("size", [{}, {"image_size": 16}, {"tile_size": 16}, {"image_size": 16, "subset": 5}])
def test_counts_and_reasons(folder, size):
    source = Opening(**SETTINGS, **size).source(str(folder))
    assert sorted(source.ignored) == ["a/more.TXT", "a/notes.txt", "b/README", "b/film.mp4", "list.csv"]
    notice = left_out_notice(source)
    assert notice is not None
    assert notice.startswith("in:all: 13 of 25 files left out: ")
    assert "2 cannot be decoded (no known image format): a/5.png, b/6.png" in notice
    assert "a/1.png, a/2.png, b/3.png, ..." in notice, "one reason, though its numbers differ"
    assert "2 excluded: a/7.png, b/7.png" in notice
    assert notice.endswith("5 of other kinds: .txt 2, .csv 1, .mp4 1, ...")


def test_nothing_is_said_of_nothing(tmp_path):
    pictures(tmp_path / "in", ["a/0.png", "b/0.png"])
    (tmp_path / "in" / "a" / ".hidden").touch()
    assert left_out_notice(Opening().source(str(tmp_path / "in"))) is None


def test_each_split_counts_its_own(tmp_path):
    pictures(tmp_path / "in", [f"{split}/{label}/0.png" for split in ("train", "test") for label in "ab"])
    (tmp_path / "in" / "test" / "a" / "Thumbs.db").touch()
    train, test = (Opening().source(str(tmp_path / "in"), split) for split in ("train", "test"))
    assert left_out_notice(train) is None
    assert left_out_notice(train, test) == "in:test: 1 of 3 files left out: 1 of other kinds: .db 1"


def test_why_a_file_is_left_out(folder):
    source = Opening(**SETTINGS).source(str(folder))
    reasons = {entry.file: why_left_out(entry) for entry in source.left_out}
    assert reasons["a/7.png"] == "excluded: left out"
    assert reasons["a/5.png"] == "cannot be decoded: left out (no known image format)"
