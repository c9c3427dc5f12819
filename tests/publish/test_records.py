"""What a store keeps of its exports: names of any bytes, harmless in a spreadsheet, each export for itself."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path

import pytest

from hpcule.config.errors import StoreError
from hpcule.publish.collection import Record
from hpcule.publish.hashes import FileHash
from hpcule.publish.records import EXPORTED, RECORD, find_export, from_cell, keep_records, read_records, table, to_cell

NAMES = [
    "plain.png",
    "=1+1.png",
    "+1",
    "-1",
    "@SUM(A1)",
    "'quoted.png",
    "''twice",
    "＝1",
    "\t=1",
    "a;=1+1.png",
    "x\r\n=1.png",
    "\x1b]0;owned\x07.png",
    "back\\slash",
    "back\\x41.png",
    "\\",
    "\u202egnp.exe",
    "\x85\u2028",
    "ärger 漢字.png",
    'quote",=1',
    "",
    *(os.fsdecode(name) for name in (b"a\xff", b"\xc3", b"=\xfe\xfd", b"\xed\xb3\xbf")),
]


@pytest.mark.parametrize("name", NAMES)
def test_every_name_comes_back_from_a_harmless_cell(name):
    cell = to_cell(name)
    assert from_cell(cell) == name
    assert cell.isprintable()
    assert ";" not in cell
    cell.encode()
    assert not cell.startswith(("=", "+", "-", "@", "＝", "＋", "－", "＠"))
    assert name not in ("plain.png", "ärger 漢字.png") or cell == name


def test_all_pairs_of_awkward_characters():
    awkward = ["=", "'", "\\", "x", "4", ";", "\n", "\x1b", ",", '"', "\udcff", " ", "ä"]
    names = [a + b + c for a in awkward for b in awkward for c in awkward]
    assert [from_cell(to_cell(name)) for name in names] == names
    records = [Record("train", name, name, True, name, {}) for name in names]
    text = table(records).decode()
    assert text.count("\n") == len(names) + 1, "one line each"
    rows = list(csv.reader(io.StringIO(text, newline="")))
    assert {len(row) for row in rows} == {5}


def test_the_table_is_read_as_it_was_written(tmp_path):
    records = [Record("train", name, f"x/{name}", bool(k % 2), name, {}) for k, name in enumerate(NAMES)]
    (tmp_path / "records.csv").write_bytes(table(records))
    assert read_records(tmp_path / "records.csv") == records


def copy_of(names: list[str], content: str) -> list[FileHash]:
    return [FileHash(name, 1, content * 64) for name in names]


def test_each_export_keeps_its_own_records(tmp_path):
    copies = {content: copy_of(["a.png", f"{content}.png"], content) for content in "123"}
    for content, hashes in copies.items():
        records = [Record("", f"from-{content}", "a.png", True, "", {})]
        keep_records(tmp_path, hashes, records, {"dicom_tags": content})
    for content, hashes in copies.items():
        export = find_export(tmp_path, hashes)
        assert export is not None
        assert export.altered(hashes) == []
        assert [record.file for record in read_records(export.records)] == [f"from-{content}"]
        assert json.loads(export.records.with_suffix(".json").read_text())["dicom_tags"] == content
        changed = [hashes[0], FileHash("new.png", 1, "9" * 64)]
        found = find_export(tmp_path, changed)
        assert found == export, "the one with the most files that are the same"
        assert found.altered(changed) == sorted([f"{content}.png", "new.png"])
    assert (tmp_path / EXPORTED).read_bytes() == export.hashes.read_bytes()
    assert (tmp_path / RECORD).read_bytes() == export.records.read_bytes()
    modes = {path.stat().st_mode & 0o077 for path in (tmp_path / "run").rglob("*")}
    assert modes == {0}


def test_arrays_leave_no_record_of_files(tmp_path):
    keep_records(tmp_path, copy_of(["a.png"], "1"), [Record("", "a", "a.png", True, "", {})], {})
    keep_records(tmp_path, copy_of(["copy.npz"], "2"), [], {})
    assert not (tmp_path / RECORD).exists()
    first = find_export(tmp_path, copy_of(["a.png"], "1"))
    assert first is not None
    assert read_records(first.records)[0].file == "a"


def test_what_an_earlier_version_left_is_kept(tmp_path):
    keep_records(tmp_path, copy_of(["a.png"], "1"), [Record("", "old", "a.png", True, "", {})], {})
    for path in (tmp_path / "run" / "exports").iterdir():
        path.unlink()
    (tmp_path / "run" / "exports").rmdir()
    old = find_export(tmp_path, copy_of(["a.png"], "1"))
    assert old is not None
    assert (old.hashes, old.records) == (tmp_path / EXPORTED, tmp_path / RECORD)
    keep_records(tmp_path, copy_of(["a.png"], "2"), [Record("", "new", "a.png", True, "", {})], {})
    for content, name in (("1", "old"), ("2", "new")):
        export = find_export(tmp_path, copy_of(["a.png"], content))
        assert export is not None
        assert read_records(export.records)[0].file == name


def test_no_export(tmp_path: Path):
    assert find_export(tmp_path, copy_of(["a"], "1")) is None


@pytest.mark.parametrize(
    "damaged",
    [
        b"split,file,published,protected,note\ntrain,a.png\n",
        b"split,file,published,protected\ntrain,a.png,a.png,yes\n",
        b"split,file,published,protected,note\n" + b"a" * 200_000,
        b"split,file\xff",
    ],
    ids=["a short row", "a column less", "a cell of 200,000 letters", "no UTF-8"],
)
def test_a_damaged_record_is_named(tmp_path: Path, damaged: bytes):
    (tmp_path / "export.csv").write_bytes(damaged)
    with pytest.raises(StoreError, match=r"export\.csv cannot be read .*: export again"):
        read_records(tmp_path / "export.csv")


def test_a_damaged_hash_list_fits_no_copy(tmp_path: Path):
    hashes = copy_of(["a.png", "b.png"], "1")
    keep_records(tmp_path, hashes, [], {})
    found = find_export(tmp_path, hashes)
    assert found is not None
    found.hashes.write_bytes(found.hashes.read_bytes().replace(b"1", b"\xff", 1))
    assert find_export(tmp_path, hashes) == found
    assert found.altered(hashes) == ["a.png"]
