"""The hash list of a copy, against sha256sum itself."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess

import pytest

from hpcule.config.errors import DataError
from hpcule.publish.hashes import file_hashes, hash_list, read_hash_list

NAMES = [
    "b/2.png",
    "b/10.png",
    "a.png",
    "B.png",
    "two\nlines.png",
    "back\\slash.png",
    "both\\\n.png",
    "\\n.png",
    "ä ö.png",
]


@pytest.fixture
def copy(tmp_path):
    for number, name in enumerate([*NAMES, os.fsdecode(b"latin-\xe4.png")]):
        path = tmp_path / "copy" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes([number]) * (number * 1000))
    return tmp_path / "copy"


def check(copy, listed):
    finished = subprocess.run(["sha256sum", "--check", "--strict", listed], cwd=copy, capture_output=True)
    return finished.returncode == 0


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="needs sha256sum")
def test_sha256sum_checks_the_list(copy, tmp_path):
    listed = tmp_path / "hashes"
    listed.write_bytes(hash_list(file_hashes(copy)))
    assert len(listed.read_bytes().splitlines()) == 10
    assert check(copy, listed)
    with (copy / "both\\\n.png").open("r+b") as file:
        file.write(b"x")
    assert not check(copy, listed)


def test_the_list_is_sorted_and_reads_back(copy):
    hashes = file_hashes(copy)
    assert [entry.file for entry in hashes] == sorted(entry.file for entry in hashes)
    expected = {
        str(path.relative_to(copy)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in copy.rglob("*")
        if path.is_file()
    }
    assert read_hash_list(hash_list(hashes)) == expected
    assert {entry.file: entry.bytes for entry in hashes}["b/2.png"] == 0


def test_a_single_file_is_a_copy_too(copy):
    (entry,) = file_hashes(copy / "a.png")
    assert entry.file == "a.png"
    assert entry.sha256 == hashlib.sha256((copy / "a.png").read_bytes()).hexdigest()


@pytest.mark.parametrize("target", ["a.png", "/etc", "absent"])
def test_links_are_refused(copy, target):
    (copy / "link").symlink_to(target)
    with pytest.raises(DataError, match="link is a link or no regular file"):
        file_hashes(copy)
