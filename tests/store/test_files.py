from __future__ import annotations

import resource
import stat
import subprocess
import sys

import pytest

from hpcule.config.errors import StoreError, UsageError
from hpcule.store.files import (
    discard,
    private_directory,
    read_json,
    require_own_results,
    sha256_file,
    write_atomically,
)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def names(folder):
    return [path.name for path in folder.iterdir()]


def test_a_file_is_written_whole_and_private(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, b"old")
    write_atomically(path, memoryview(b"new bytes"))
    assert path.read_bytes() == b"new bytes"
    assert mode(path) == 0o600
    assert names(tmp_path) == ["file"]
    write_atomically(path, b"", mode=0o644)
    assert mode(path) == 0o644


def test_discarding_a_file_leaves_what_is_not_its_own(tmp_path):
    path, others = tmp_path / "state", ["states", ".state2.u7q1usr1.partial", ".state.u7q1usr1.copy", "partial"]
    for name in ["state", ".state.u7q1usr1.partial", ".state.abcdefgh.partial", *others]:
        (tmp_path / name).write_bytes(b"bytes")
    (tmp_path / ".state.linked12.partial").symlink_to(tmp_path / "partial")
    discard(path)
    discard(path)
    assert sorted(names(tmp_path)) == sorted([*others, ".state.linked12.partial"])


def test_a_full_disk_is_said_in_one_line_and_leaves_the_old_file(small_disk):
    path = small_disk / "shard.h5"
    write_atomically(path, b"old")
    with pytest.raises(StoreError) as caught:
        write_atomically(path, bytes(5 << 20))
    assert str(caught.value) == (
        f"disk full while writing shard.h5 (needs 5 MiB in {small_disk}): free space, then run again with --resume"
    )
    assert path.read_bytes() == b"old"
    assert names(small_disk) == ["shard.h5"]


def test_a_file_above_the_size_limit(tmp_path):
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from hpcule.store.files import write_atomically\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))\n"
        "write_atomically(Path(sys.argv[1]), bytes(2000))"
    )
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "big")], capture_output=True, text=True)
    assert "StoreError: big (1 MiB) is larger than a file may be" in done.stderr
    assert names(tmp_path) == []


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(StoreError, match=r"cannot write file in .*gone: No such file"):
        write_atomically(tmp_path / "gone" / "file", b"")


def test_a_read_only_file_system(mount):
    folder = mount("ro")
    with pytest.raises(StoreError, match="read-only file system; choose another folder"):
        write_atomically(folder / "file", b"")


def test_a_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    code = (
        "import os, sys; from pathlib import Path\n"
        "from hpcule.store.files import write_atomically\n"
        "if os.geteuid() == 0: os.seteuid(65534)\n"
        "write_atomically(Path(sys.argv[1]), b'')"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "file")], capture_output=True, text=True)
    assert "StoreError: no permission to write file in" in done.stderr


def test_private_directory_creates_and_tightens(tmp_path):
    private_directory(tmp_path / "a" / "b")
    assert mode(tmp_path / "a" / "b") == 0o700
    (tmp_path / "open").mkdir(mode=0o755)
    private_directory(tmp_path / "open")
    assert mode(tmp_path / "open") == 0o700
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="is a file where a folder is needed"):
        private_directory(tmp_path / "file")


def test_sha256_of_a_file(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256_file(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.parametrize(
    "text", ["", "[1]", '{"a": NaN}', "\xff", "[" * 100_000, '{"a": 1', '{"a": 1e999}', '{"a": 9223372036854775808}']
)
def test_hostile_json(tmp_path, text):
    (tmp_path / "file").write_text(text, encoding="latin-1")
    with pytest.raises(ValueError):  # noqa: PT011
        read_json(tmp_path / "file")


def test_json_that_is_too_large_is_not_read(tmp_path):
    with (tmp_path / "file").open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(ValueError, match="larger than 64 MiB"):
        read_json(tmp_path / "file")


def test_results_of_an_earlier_run_may_be_replaced(tmp_path):
    require_own_results(tmp_path)
    require_own_results(tmp_path / "absent")
    (tmp_path / "other.json").write_text("{}")
    (tmp_path / "results.json").write_text('{"hpcule": "0"}')
    (tmp_path / "report.html").touch()
    require_own_results(tmp_path)
    (tmp_path / "results.json").unlink()
    with pytest.raises(UsageError, match=r"holds report\.html from elsewhere"):
        require_own_results(tmp_path)
