"""Where nothing is written: into the store, among the data, through links, and over what others have there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def folder(tmp_path) -> Path:
    rng = np.random.default_rng(0)
    for number in range(6):
        path = tmp_path / "in" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(30, 220, (8, 8, 3), np.uint8)).save(path)
    (tmp_path / "link").symlink_to(tmp_path)
    return tmp_path


@pytest.fixture
def crafted(folder, run) -> Path:
    assert run("craft", "classwise", "--data", folder / "in", "--out", folder / "store")[0] == 0
    return folder


def everything(root: Path) -> set[Path]:
    return {path for path in root.rglob("*") if not path.is_symlink()}


@pytest.mark.parametrize("out", ["store/copy", "store/run/copy.npz", "in/copy", "in/a/new/copy", "link/store/copy"])
@pytest.mark.parametrize("format", ["folder", "npz"])
def test_no_export_into_the_store_or_the_data(crafted, run, out, format):
    if format == "folder" and out.endswith(".npz"):
        out = out.removesuffix(".npz")
    before = everything(crafted)
    line = ("--data", crafted / "in", "--out", crafted / out, "--format", format)
    code, _, err = run("export", crafted / "store", *line)
    assert code == 2
    assert "lies in the store" in err or "lies in the data" in err
    assert "name a folder outside of it" in err
    assert everything(crafted) == before
    assert run("verify", crafted / "store")[0] == 0


def test_no_export_into_data_that_a_split_is_named_of(crafted, run):
    code, _, err = run("export", crafted / "store", "--data", f"{crafted / 'in'}:all", "--out", crafted / "in" / "copy")
    assert code == 2
    assert "lies in the data" in err


def test_no_store_among_the_data(folder, run):
    before = everything(folder)
    code, _, err = run("craft", "classwise", "--data", folder / "in", "--out", folder / "link" / "in" / "store")
    assert code == 2
    assert "lies in the data" in err
    assert everything(folder) == before


@pytest.mark.parametrize("place", ["store", "copy", "in"])
def test_nothing_is_reverted_into_what_it_is_made_of(crafted, run, place):
    assert run("export", crafted / "store", "--data", crafted / "in", "--out", crafted / "copy")[0] == 0
    before = everything(crafted)
    line = ("--data", crafted / "copy", "--originals", crafted / "in", "--out", crafted / place / "back")
    code, _, err = run("revert", crafted / "store", *line)
    assert code == 2
    assert "lies in the" in err
    assert everything(crafted) == before


@pytest.mark.parametrize("there", ["file", "link", "link to nothing"])
def test_a_hash_list_overwrites_nothing(crafted, run, there):
    assert run("export", crafted / "store", "--data", crafted / "in", "--out", crafted / "copy")[0] == 0
    path, target = crafted / "hashes", crafted / "precious"
    if there == "file":
        path.write_text("mine")
    else:
        path.symlink_to(target)
        if there == "link":
            target.write_text("mine")
    code, _, err = run("inspect", crafted / "copy", "--hashes", path)
    assert code == 2
    assert "is there already" in err
    assert target.exists() == (there == "link")
    assert there == "link to nothing" or path.read_text() == "mine"


def test_the_rest_of_a_killed_export_is_named(folder, run):
    left = folder / ".copy.abc123.partial"
    left.mkdir()
    (folder / ".copy.txt").touch()
    words = ("--data", folder / "in", "--out", folder / "copy")
    for verb in ("export", "revert"):
        code, _, err = run(verb, folder / "store", *words)
        assert (code, err.count("\n")) == (1, 2)
        assert f"has left a part of copy: remove {left}\n" in err
    assert left.exists()
    left.rmdir()
    assert "has left" not in run("export", folder / "store", *words)[2]


@pytest.mark.parametrize("verb", ["evaluate", "train"])
@pytest.mark.parametrize(
    ("file", "text"),
    [("results.json", '{"mine": 1}'), ("results.json", "["), ("config.yaml", "a: 1"), ("report.html", "")],
)
def test_results_of_others_are_not_replaced(crafted, run, verb, file, text):
    (crafted / "out").mkdir()
    (crafted / "out" / file).write_text(text)
    store = [crafted / "store"] if verb == "evaluate" else []
    words = ("--data", crafted / "in", "--test", f"{crafted / 'in'}:all", "--out", crafted / "out")
    code, _, err = run(verb, *store, *words)
    assert (code, err.count("\n")) == (2, 1)
    assert f"out holds {file} from elsewhere" in err
    assert (crafted / "out" / file).read_text() == text
