"""Copies that appear whole or not at all, in folders that others may write to."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from hpcule.config.errors import StoreError, UsageError
from hpcule.store.staged import create, require_apart, staged


@pytest.fixture(autouse=True)
def _usual_mask():
    before = os.umask(0o027)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def write(made: Path, *, folder: bool) -> None:
    if not folder:
        with create(made) as file:
            file.write(b"whole")
        return
    made.mkdir()
    for name in ("a/1", "a/b/2"):
        with create(made / name) as file:
            file.write(b"whole")


@pytest.mark.parametrize("folder", [True, False])
@pytest.mark.parametrize(("private", "expected"), [(True, 0o700), (False, 0o750)])
def test_nobody_else_reads_it_before_it_is_whole(tmp_path, folder, private, expected):
    out = tmp_path / "new" / "copy"
    with staged(out, private=private) as made:
        write(made, folder=folder)
        (stage,) = out.parent.iterdir()
        assert mode(stage) == 0o700
        assert not out.exists()
        files = [path for path in stage.rglob("*") if path.is_file()]
        assert all(mode(path) == 0o600 for path in files)
    assert list(out.parent.iterdir()) == [out]
    for path in (out, *out.rglob("*")):
        assert mode(path) == (expected if path.is_dir() else expected & 0o666), path


def test_every_copy_is_made_under_another_name(tmp_path):
    names = set()

    def fail() -> None:
        with staged(tmp_path / "copy", private=False) as made:
            names.add(made.parent.name)
            raise RuntimeError

    for _ in range(5):
        with pytest.raises(RuntimeError):
            fail()
    assert len(names) == 5
    assert not list(tmp_path.iterdir()), "what failed leaves nothing"


def test_a_name_of_the_most_bytes(tmp_path):
    out = tmp_path / ("ä" * 127)
    with staged(out, private=False) as made:
        write(made, folder=True)
    assert (out / "a" / "1").read_bytes() == b"whole"


@pytest.mark.parametrize("folder", [True, False])
@pytest.mark.parametrize("kind", ["file", "folder", "link to a file", "link to a folder", "link to nothing"])
def test_what_others_create_meanwhile_stays_theirs(tmp_path, folder, kind):
    out, target = tmp_path / "copy", tmp_path / "theirs"
    if "nothing" not in kind:
        if "folder" in kind:
            (target / "precious").mkdir(parents=True)
        else:
            target.write_text("precious")

    def taken() -> None:
        with staged(out, private=False) as made:
            write(made, folder=folder)
            if kind.startswith("link"):
                out.symlink_to(target)
            else:
                target.rename(out)

    with pytest.raises(StoreError, match="somebody else"):
        taken()
    assert {path.name for path in tmp_path.iterdir()} <= {"copy", "theirs"}
    kept = out if kind in ("file", "folder") else target
    if "nothing" in kind:
        assert not target.exists()
    elif "folder" in kind:
        assert [path.name for path in kept.iterdir()] == ["precious"]
    else:
        assert kept.read_text() == "precious"


def test_a_folder_of_others_in_the_place_of_ours_is_not_removed(tmp_path):
    stages = []

    def robbed() -> None:
        with staged(tmp_path / "copy", private=False) as made:
            stages.append(made.parent)
            made.parent.rename(tmp_path / "elsewhere")
            (made.parent / "precious").mkdir(parents=True)

    with pytest.raises(FileNotFoundError):
        robbed()
    assert [path.name for path in stages[0].iterdir()] == ["precious"]


@pytest.mark.parametrize("there", ["file", "link", "link to nothing", "pipe"])
def test_a_file_is_created_only_where_nothing_is(tmp_path, there):
    path, target = tmp_path / "x", tmp_path / "target"
    if there == "file":
        path.write_text("precious")
    elif there == "pipe":
        os.mkfifo(path)
    else:
        if there == "link":
            target.write_text("precious")
        path.symlink_to(target)
    with pytest.raises(FileExistsError):
        create(path)
    assert target.exists() == (there == "link")
    assert there not in ("file", "link") or path.read_text() == "precious"


def test_a_killed_process_leaves_nothing_that_others_can_read(tmp_path):
    script = (
        "import sys, time; from pathlib import Path; from hpcule.store.staged import create, staged\n"
        "with staged(Path(sys.argv[1]), private=False) as made:\n"
        "    with create(made / 'x') as file:\n        file.write(b'half')\n"
        "    print('ready', flush=True)\n    time.sleep(60)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", script, tmp_path / "copy"], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    child.kill()
    child.communicate()
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".copy.")
    assert left.name.endswith(".partial")
    assert mode(left) == 0o700
    with staged(tmp_path / "copy", private=False) as made:
        write(made, folder=True)
    assert left.exists(), "perhaps another process is still at it"


@pytest.mark.parametrize("out", ["store/copy", "store/run/new/copy", "link/copy", "store/../store/copy", "up/store/x"])
def test_no_copy_into_a_store(tmp_path, out):
    (tmp_path / "store" / "run").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "store" / "run")
    (tmp_path / "up").symlink_to(tmp_path)
    with pytest.raises(UsageError, match="lies in the store"):
        require_apart(tmp_path / out, {"the store": tmp_path / "store", "the data": None})


def test_a_copy_next_to_a_store(tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "data.npz").touch()
    places = {"the store": tmp_path / "store", "the data": tmp_path / "data.npz", "what is gone": tmp_path / "x"}
    require_apart(tmp_path / "copy", places)
    require_apart(tmp_path / "store-copy" / "deep", places)


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
@pytest.mark.parametrize("private", [True, False])
def test_another_user_of_the_machine(private):
    def as_nobody(*command: str | Path) -> bool:
        done = subprocess.run(command, user=65534, group=65534, extra_groups=[], capture_output=True, cwd="/")
        return done.returncode == 0

    with tempfile.TemporaryDirectory() as shared:
        Path(shared).chmod(0o1777)
        os.umask(0)
        out = Path(shared, "copy")
        with staged(out, private=private) as made:
            write(made, folder=True)
            assert not as_nobody("cat", made / "a" / "1")
            assert not as_nobody("ls", made.parent)
            assert not as_nobody("touch", made / "a" / "planted")
            assert not as_nobody("mv", made.parent, Path(shared, "elsewhere"))
        assert as_nobody("cat", out / "a" / "1") is not private
        assert as_nobody("ls", out) is not private
