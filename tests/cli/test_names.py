"""Names that are not UTF-8, that a terminal would obey or a spreadsheet run: they work to the end, and harm nobody."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hpcule.publish.records import read_records

FOLDERS = [b"a\xff", b"=b\r", b"+c\x1b]0;owned\x07"]
FILES = [b"=1+1.png", b"-z;=2.png", b"y\r\n.png", b"x\x1b[2J.jpg", b"\xfe\xfd.png", b"back\\x41.png", b"'q.png"]


@pytest.fixture
def pictures(tmp_path) -> Path:
    rng = np.random.default_rng(0)
    for folder in FOLDERS:
        for file in FILES:
            path = tmp_path / os.fsdecode(b"in\xff\x1b[31m") / os.fsdecode(folder) / os.fsdecode(file)
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(30, 220, (8, 8, 3), np.uint8)
            Image.fromarray(pixels).save(path, "JPEG" if file.endswith(b"jpg") else "PNG")
    (path.parent / "read\x1bme.txt").write_text("no image")
    return path.parents[1]


def said(outcome: tuple[int, str, str]) -> str:
    code, out, err = outcome
    assert code == 0, err
    text = (out + err).replace("\n", "")
    assert text.isprintable(), ascii(text)
    return text


@pytest.mark.parametrize("opening", [[], ["--set", "image_size=8"]])
def test_from_craft_to_revert(run, pictures, tmp_path, opening):
    store, copy, back = (tmp_path / os.fsdecode(name) for name in (b"st\xff\x1b[1m", b"cp\xff\x07", b"bk\xff\r"))
    said(run("craft", "classwise", "--data", pictures, "--out", store, *opening))
    said(run("export", store, "--data", pictures, "--out", copy))
    said(run("verify", store, "--data", pictures))
    said(run("inspect", copy))
    records = read_records(store / "run" / "export.csv")
    names = [record.file for record in records if record.published]
    assert sorted(map(os.fsencode, names)) == sorted(b"%s/%s" % (a, b) for a in FOLDERS for b in FILES)
    written = {path.relative_to(copy).as_posix() for path in copy.rglob("*") if path.is_file()}
    assert {record.published for record in records if record.published} == written
    assert "not as the export" not in said(run("revert", store, "--data", copy, "--out", back))
    (copy / os.fsdecode(FOLDERS[0]) / "\x1b]0;owned\x07.txt").write_text("x")
    assert r"\x1b]0;owned\x07.txt" in said(run("revert", store, "--data", copy, "--out", tmp_path / "again"))


def test_names_in_errors(run, pictures, tmp_path):
    for arguments in (["verify", pictures], ["inspect", pictures / "no\x1b[1m"], ["export", pictures, "--data", "x"]):
        more = ["--out", tmp_path / "copy"] if arguments[0] == "export" else []
        code, out, err = run(*arguments, *more)
        assert code
        assert (out + err).replace("\n", "").isprintable()


def test_three_recipients(run, pictures, tmp_path):
    store = tmp_path / "store"
    said(run("craft", "classwise", "--data", pictures, "--out", store, "--set", "image_size=8"))
    policies = {"folder": ["--format", "folder"], "jpeg": ["--jpeg-quality", "90"], "npz": ["--format", "npz"]}
    for name, policy in policies.items():
        said(run("export", store, "--data", pictures, "--out", tmp_path / name, *policy))
    said(run("verify", store))
    for name in policies:
        told = said(run("revert", store, "--data", tmp_path / name, "--out", tmp_path / f"{name}-back"))
        assert "All files are as the export wrote them." in told, name
        assert len(list((tmp_path / f"{name}-back").rglob("*.*"))) >= (
            1 if name == "npz" else len(FOLDERS) * len(FILES)
        )
