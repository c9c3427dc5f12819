"""What another user of the machine can do to a run in progress: nothing."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

NOBODY = 65534
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


class Payload:
    """A pickle that makes a file anybody can make, when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def as_nobody(function, *arguments):
    """What a function returns in a process of another user; plain values."""
    "localhost".encode("idna")  # sockets import this codec, from a folder that the other user may not enter
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        answer = ["the function failed"]
        with contextlib.suppress(BaseException):
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            answer = function(*arguments)
        os.write(writing, json.dumps(answer).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        answer = json.loads(file.read())
    os.waitpid(child, 0)
    return answer


@pytest.fixture
def place():
    """A folder that everybody may enter, with a TMPDIR in which everybody may write, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o755)
    (folder / "tmp").mkdir()
    (folder / "tmp").chmod(0o1777)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def run(place):
    """A craft on two workers that goes on for hours, once it has begun; killed at the end."""
    data, store = place / "toys.npz", place / "store"
    rng = np.random.default_rng(0)
    np.savez(data, images=rng.integers(0, 256, (96, 8, 8, 3), np.uint8), labels=np.arange(96) % 3)
    command = [sys.executable, "-m", "hpcule", "craft", "pil", "--data", data, "--out", store, "--workers", "2"]
    command += ["--set", "method.epochs=10000000", "--set", "deterministic=true", "--set", "world.checkpoint_seconds=1"]
    environ = {**os.environ, "TMPDIR": str(place / "tmp"), "OMP_NUM_THREADS": "1"}
    before = set(Path("/dev/shm").iterdir())
    process = subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    try:
        deadline = time.monotonic() + 120
        while not list(store.glob("run/checkpoint-*/COMMIT")) and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert process.poll() is None, process.stderr.read()
        yield process, set(Path("/dev/shm").iterdir()) - before
    finally:
        process.kill()
        process.communicate()


def processes(launcher):
    """Process ids of a run: of the launcher and its workers."""
    children = (Path(f"/proc/{launcher}/task/{launcher}/children")).read_text().split()
    return [launcher, *map(int, children)]


def ports(process):
    links = [str(link.readlink()) for link in Path(f"/proc/{process}/fd").iterdir() if link.is_symlink()]
    sockets = {link[8:-1] for link in links if link.startswith("socket:[")}
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [int(line[1].split(":")[1], 16) for line in lines if line[3] == "0A" and line[9] in sockets]


def first_byte(path):
    with path.open("rb") as file:
        return file.read(1)


def opened(paths, pids):
    """Of these files, folders and processes, those that can be read, written, replaced or signalled."""
    found = []

    def attempt(what, action, *arguments):
        with contextlib.suppress(OSError):
            action(*arguments)
            found.append(what)

    for path in map(Path, paths):
        attempt(f"read {path}", open, path, "rb")
        attempt(f"write {path}", os.open, path, os.O_WRONLY)
        attempt(f"list {path}", os.listdir, path)
        attempt(f"create in {path}", os.open, path / "planted", os.O_WRONLY | os.O_CREAT)
        attempt(f"link in {path}", os.symlink, "/etc/passwd", path / "planted")
        attempt(f"remove {path}", os.rename, path, path.with_name("moved"))
    for pid in pids:
        for name in ("environ", "mem", "maps"):
            attempt(f"read {name} of a process", first_byte, Path(f"/proc/{pid}/{name}"))
        attempt("read descriptors of a process", os.listdir, f"/proc/{pid}/fd")
        attempt("signal a process", os.kill, pid, 0)
    return found


def knock(numbers, marker):
    """Connect to ports, and send what a peer of gloo could send, and a pickle; the ports that took it."""
    taken = []
    for number in numbers:
        for start in (b"", *(rank.to_bytes(8, "little") for rank in range(4))):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", number), 5) as peer:
                peer.sendall(start + pickle.dumps(Payload(marker)))
                taken.append(number)
    return taken


@pytest.mark.slow
def test_nothing_of_a_run_is_open_to_another_user(run, place):
    process, shared = run
    temporary = list((place / "tmp").iterdir())
    assert temporary, "the ranks meet in a folder of TMPDIR"
    files = [path for root in (*temporary, place / "store") for path in [root, *root.rglob("*")]]
    assert as_nobody(opened, [str(path) for path in [*files, *shared]], processes(process.pid)) == []


@pytest.mark.slow
def test_what_another_user_sends_changes_nothing(run, place):
    process, _ = run
    pids = processes(process.pid)
    assert ports(pids[0]) == []
    numbers = [number for pid in pids[1:] for number in ports(pid)]
    assert as_nobody(knock, numbers, str(place / "tmp" / "ran")) != ["the function failed"]
    time.sleep(2)
    assert process.poll() is None
    assert not (place / "tmp" / "ran").exists()
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 75
    assert "stopped by SIGTERM, saved" in said
    assert list((place / "tmp").iterdir()) == []


def test_the_attempts_succeed_where_a_folder_is_open(place):
    """The checks above would find something if there were something to find."""
    (place / "tmp" / "file").write_text("open")
    found = as_nobody(opened, [str(place / "tmp" / "file"), str(place / "tmp")], [])
    assert f"read {place / 'tmp' / 'file'}" in found
    assert f"create in {place / 'tmp'}" in found
