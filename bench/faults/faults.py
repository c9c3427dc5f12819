"""The faults: how each disturbs a craft, and how often it does so in a whole matrix."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

from cases import contents
from inject import KINDS, RENAMES, WRITES
from mounts import DISK, mount, unmount
from trial import Trial, WrongError


def killed(action: str) -> Callable[[Trial], str]:
    """Killed, torn or signalled at any operation."""

    def play(trial: Trial) -> str:
        trial.disturbed(action, WRITES if action == "torn" else KINDS)
        return trial.resumed()

    return play


def lied(action: str) -> Callable[[Trial], str]:
    """A file whose tail never reached the disk."""

    def play(trial: Trial) -> str:
        trial.disturbed(action, RENAMES)
        return trial.resumed()

    return play


def refused(action: str) -> Callable[[Trial], str]:
    """Nothing can be written from some operation on; then it can again."""

    def play(trial: Trial) -> str:
        trial.disturbed(action)
        return trial.resumed()

    return play


def harmless(action: str) -> Callable[[Trial], str]:
    """What must not be noticed at all."""

    def play(trial: Trial) -> str:
        trial.disturbed(action)
        if contents(trial.store) != trial.bench.expected(trial.case):
            raise WrongError("did not end undisturbed")
        return trial.resumed()

    return play


def full_disk(trial: Trial) -> str:
    """The disk is filled by somebody else, who then removes the file."""
    mount("-t", "tmpfs", "-o", f"size={DISK}", "none", str(trial.store.parent))
    try:
        trial.disturbed("fill")
        (trial.store.parent / "filler").unlink()
        return trial.resumed()
    finally:
        unmount(trial.store.parent)


def read_only(trial: Trial) -> str:
    """The store's folder turns read-only under the run, and writable again after a resume has failed."""
    try:
        trial.disturbed("read-only", RENAMES)
        if trial.damages():
            refused = trial.start("read-only", trial.again).end()
            trial.check(refused)
            if not any(refused.codes):
                raise WrongError("resumed in a read-only folder")
    finally:
        unmount(trial.store)
    return trial.resumed()


def paused(trial: Trial) -> str:
    """A rank is stopped for a second."""
    run = trial.stopped()
    time.sleep(1)
    os.kill(run.struck, signal.SIGCONT)
    trial.check(run.end())
    if contents(trial.store) != trial.bench.expected(trial.case):
        raise WrongError("did not end undisturbed")
    return trial.resumed()


def orphaned(trial: Trial) -> str:
    """A rank is stopped, and its launcher killed, which takes all ranks with it."""
    trial.workers = 2
    run = trial.stopped()
    os.kill(run.launcher, signal.SIGKILL)
    trial.check(run.end())
    return trial.resumed()


def awakened(early: bool) -> Callable[[Trial], str]:
    """A rank is stopped, its launcher and the other rank are killed, and it wakes up beside, or after, a resume."""

    def play(trial: Trial) -> str:
        trial.workers = 2
        run = trial.stopped("srun")
        os.kill(run.launcher, signal.SIGKILL)
        for process in run.pids():
            if process != run.struck:
                os.kill(process, signal.SIGKILL)
        beside = trial.start("beside", trial.again)
        if early:
            time.sleep(1)
        else:
            trial.check(beside.end())
        os.kill(run.struck, signal.SIGCONT)
        trial.check(run.end())
        trial.check(beside.end())
        return trial.resumed()

    return play


FAULTS: dict[str, tuple[int, Callable[[Trial], str]]] = {
    "one rank killed": (30, killed("kill")),
    "all ranks killed": (30, killed("kill all")),
    "torn write, all killed": (16, killed("torn")),
    "file without its tail, all killed": (10, lied("short, killed")),
    "file with a tail of zeros, all killed": (10, lied("zeros, killed")),
    "file without its tail, unnoticed": (8, lied("short")),
    "file with a tail of zeros, unnoticed": (8, lied("zeros")),
    "no space left (ENOSPC)": (14, refused("ENOSPC")),
    "disk error (EIO)": (10, refused("EIO")),
    "read-only (EROFS)": (6, refused("EROFS")),
    "full file system": (10, full_disk),
    "read-only file system": (6, read_only),
    "clock jumps": (8, harmless("clock")),
    "slow rank": (4, harmless("slow")),
    "rank stopped for a second": (6, paused),
    "rank stopped, launcher killed": (6, orphaned),
    "orphan wakes up during the resume": (4, awakened(early=True)),
    "orphan wakes up after the resume": (2, awakened(early=False)),
    "SIGTERM": (8, killed("TERM")),
    "SIGUSR1": (4, killed("USR1")),
}
"""How many of 200 runs each takes, and how it goes."""
KILLS: dict[str, tuple[int, Callable[[Trial], str]]] = {
    "one rank killed": (1, killed("kill")),
    "all ranks killed": (1, killed("kill all")),
    "all ranks killed some time later": (2, killed("kill all soon")),
}
"""Kills in the middle of work, and how often of four runs each happens."""
MOUNTED = ("full file system", "read-only file system")
