from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import time

import pytest

from hpcule.config.errors import StoreError
from hpcule.store.lock import StoreLock

HOLDER = """
import sys, time
from pathlib import Path
from hpcule.store.lock import StoreLock
with StoreLock(Path(sys.argv[1]), patience=float(sys.argv[2])) as lock:
    getattr(lock, sys.argv[3])()
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def hold(tmp_path):
    """Start a process that holds the lock until it is killed."""
    started = []

    def start(kind="exclusive_then_shared", patience=0.0, wait=True):
        command = [sys.executable, "-c", HOLDER, str(tmp_path), str(patience), kind]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        started.append(process)
        if wait:
            assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_the_lock_is_in_a_private_folder(tmp_path):
    with StoreLock(tmp_path / "store") as lock:
        lock.exclusive_then_shared()
    assert (tmp_path / "store").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "store" / "run" / "lock").stat().st_mode & 0o777 == 0o600


def test_ranks_of_one_run_hold_it_together(tmp_path):
    with StoreLock(tmp_path, 0) as first, StoreLock(tmp_path, 0) as second, StoreLock(tmp_path, 0) as third:
        first.exclusive_then_shared()
        second.shared()
        third.shared()
    with StoreLock(tmp_path, 0) as again:
        again.exclusive_then_shared()


def test_a_second_run_is_told_who_is_there(tmp_path, hold):
    process = hold()
    began = time.monotonic()
    with StoreLock(tmp_path, 0.3) as lock, pytest.raises(StoreError) as caught:
        lock.exclusive_then_shared()
    assert 0.3 <= time.monotonic() - began < 5
    assert f"in use by process {process.pid} on {os.uname().nodename}" in str(caught.value)


def test_any_surviving_rank_keeps_a_resume_out(tmp_path, hold):
    first = hold()
    hold("shared")
    first.kill()
    first.wait()
    with StoreLock(tmp_path, 0.2) as lock, pytest.raises(StoreError, match=f"process {first.pid} "):
        lock.exclusive_then_shared()


def test_a_run_that_was_just_killed_is_waited_for(tmp_path, hold):
    process = hold()
    waiting = hold(patience=30.0, wait=False)
    time.sleep(0.2)
    assert waiting.poll() is None
    process.kill()
    assert waiting.stdout.readline() == "held\n"


def test_a_rank_that_comes_while_another_run_probes(tmp_path):
    with StoreLock(tmp_path, 0) as owner, StoreLock(tmp_path, 0) as late:
        owner.exclusive_then_shared()
        fcntl.flock(owner._descriptor, fcntl.LOCK_EX)
        with pytest.raises(StoreError, match=f"in use by process {os.getpid()}"):
            late.shared()


def test_a_run_that_comes_in_between_is_noticed(tmp_path):
    """Between the exclusive and the shared lock there is a moment without any."""

    class Slow(StoreLock):
        def _acquire(self, kind):
            if kind == fcntl.LOCK_SH:
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)
                quick.exclusive_then_shared()
            return super()._acquire(kind)

    with StoreLock(tmp_path, 0) as quick, Slow(tmp_path, 0) as slow, pytest.raises(StoreError, match="is in use"):
        slow.exclusive_then_shared()


def test_of_many_runs_that_start_at_once_one_goes_on(hold):
    processes = [hold(wait=False) for _ in range(6)]
    held = 0
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and sum(p.poll() is None for p in processes) > 1:
        time.sleep(0.05)
    for process in processes:
        process.kill()
        out, error = process.communicate()
        held += out == "held\n"
        assert out == "held\n" or "StoreError: store" in error
    assert held == 1


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_system_without_locks_is_a_warning(tmp_path, monkeypatch, caplog, number):
    """Such a file system cannot be mounted in a test; this is what the system call says on one."""

    def flock(descriptor, kind):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with StoreLock(tmp_path) as first, StoreLock(tmp_path) as second:
        first.exclusive_then_shared()
        second.shared()
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path} is on a file system without locks: start nothing else in this store"
    ]
