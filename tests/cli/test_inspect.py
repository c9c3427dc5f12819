"""`hpcule inspect`: what somebody sees who has only the copy, and that it is what the owner sees."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """24 images of different sizes in two classes and two splits."""
    root = tmp_path_factory.mktemp("inspected") / "pictures"
    for number in range(24):
        folder = root / ("train" if number < 16 else "test") / f"class{number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (20 + number, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return root


COPIES = {
    # data, settings of craft, format: kind, shape of each split, files
    "folder at own sizes": ("pictures", ["--set", "image_size=16"], "folder", "folder", None, 24),
    "npz": ("small_npz", [], "npz", "npz", [3, 16, 16], 1),
    "hdf5": ("small_npz", [], "hdf5", "hdf5", [3, 16, 16], 1),
    "folder": ("small_npz", [], "folder", "folder", [3, 16, 16], 191),
    "wav": ("small_wavs", [], "wav", "wav", None, 171),
}


@pytest.mark.parametrize("case", COPIES)
def test_the_recipient_sees_what_the_owner_exported(request, run, tmp_path, case):
    fixture, settings, format, kind, shape, files = COPIES[case]
    data = request.getfixturevalue(fixture)
    method = "poscuda" if kind == "wav" else "classwise"
    assert run("craft", method, "--data", data, "--out", tmp_path / "store", *settings)[0] == 0
    export = ("export", tmp_path / "store", "--data", data, "--out", tmp_path / "copy", "--format", format)
    code, told, _ = run(*export)
    assert code == 0

    code, out, _ = run("inspect", tmp_path / "copy", "--json", "--hashes", tmp_path / "hashes")
    assert code == 0
    facts = json.loads(out)
    assert (facts["kind"], facts["files"], len(facts["classes"])) == (kind, files, 4 if fixture != "pictures" else 2)
    assert [split["shape"] for split in facts["splits"].values()] == [shape, shape]
    assert all(split["labelled"] for split in facts["splits"].values())
    assert sum(split["samples"] for split in facts["splits"].values()) == (files if files > 1 else 191)

    listed = (tmp_path / "hashes").read_bytes()
    assert listed == (tmp_path / "store" / "run" / "export.sha256").read_bytes()
    assert (tmp_path / "store" / "run" / "export.sha256").stat().st_mode & 0o777 == 0o600
    assert facts["digest"] == hashlib.sha256(listed).hexdigest()
    assert facts["digest"] in told
    assert facts["bytes"] == sum(path.stat().st_size for path in (tmp_path / "copy").rglob("*") if path.is_file())
    assert [entry["file"] for entry in facts["hashes"]] == [
        line.split("  ")[1] for line in listed.decode().splitlines()
    ]

    _, out, _ = run("inspect", tmp_path / "copy")
    assert facts["digest"] in out
    assert f"{files:,} file(s)" in out
    assert ("3 x 16 x 16" if shape else "of different sizes") in out


def test_any_folder_has_hashes(run, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("a")
    (tmp_path / "notes" / "b.txt").write_text("b")
    code, out, _ = run("inspect", tmp_path / "notes", "--json")
    assert code == 0
    assert json.loads(out)["files"] == 2
    assert "holds no images" in json.loads(out)["unreadable"]
    assert "no samples that hpcule reads" in run("inspect", tmp_path / "notes")[1]


def test_refused(run, tmp_path, small_npz):
    assert "is not there" in run("inspect", tmp_path / "absent")[2]
    assert run("craft", "classwise", "--data", small_npz, "--out", tmp_path / "store")[0] == 0
    code, _, told = run("inspect", tmp_path / "store")
    assert code == 2
    assert "is a store, which is private" in told
