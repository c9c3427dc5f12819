"""The ranks of a run as real processes, forked from this one so that none has to import torch anew."""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from inject import Fault, Injector, Notes

from hpcule.cli.main import run
from hpcule.world.launcher import free_port

LIMIT = 600.0
"""Seconds after which a run counts as hung."""
PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """Become the parent of ranks whose launcher was killed, and so be told when they have ended."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)


def bury() -> None:
    """Take note of ended children."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


@dataclass
class Ended:
    """How a run ended: exit codes by rank (negative: killed by that signal), and what was said on standard error."""

    codes: list[int]
    errors: str
    hung: bool


@dataclass
class Run:
    """A launcher, its ranks, and what they say.

    Args:
        words: the command, without `hpcule`.
        workers: ranks.
        store: its folder, watched by the injector.
        folder: for what the ranks print.
        fault: what happens, or None.
        starter: "torchrun", whose ranks die with their launcher, or "srun", whose ranks do not.
    """

    words: Sequence[str]
    workers: int
    store: Path
    folder: Path
    fault: Fault | None = None
    starter: str = "torchrun"
    notes: list[Notes] = field(default_factory=list)
    launcher: int = 0

    def __post_init__(self) -> None:
        """Start."""
        self.folder.mkdir(parents=True)
        self.notes = [Notes() for _ in range(self.workers)]
        port, job = free_port(), str(random.SystemRandom().randrange(10**9))
        sys.stdout.flush()
        self.launcher = os.fork()
        # In a process group of their own, set on both sides since either may be first.
        os.setpgid(self.launcher, self.launcher)
        if not self.launcher:
            ranks = [self._start(rank, port, job) for rank in range(self.workers)]
            (self.folder / "pids").write_text(" ".join(map(str, ranks)))
            for rank, process in enumerate(ranks):
                _, status = os.waitpid(process, 0)
                (self.folder / f"{rank}.code").write_text(str(os.waitstatus_to_exitcode(status)))
            os._exit(0)

    def _start(self, rank: int, port: int, job: str) -> int:
        process = os.fork()
        if not process:
            self._become(rank, port, job)
        return process

    def _become(self, rank: int, port: int, job: str) -> NoReturn:
        output = os.open(self.folder / f"{rank}.out", os.O_WRONLY | os.O_CREAT)
        errors = os.open(self.folder / f"{rank}.err", os.O_WRONLY | os.O_CREAT)
        os.dup2(output, 1)
        os.dup2(errors, 2)
        os.environ.update(self._environment(rank, port, job))
        sys.argv = ["hpcule", *self.words]
        mine = self.fault is not None and self.fault.rank == rank
        Injector(self.store, self.notes[rank], self.fault if mine else None).arm()
        run()

    def _environment(self, rank: int, port: int, job: str) -> dict[str, str]:
        if self.workers == 1 and self.starter == "torchrun":
            return {}
        values = {"RANK": rank, "WORLD_SIZE": self.workers, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": self.workers}
        if self.starter == "torchrun":
            return {name: str(value) for name, value in values.items()} | {
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
            }
        return {
            "SLURM_PROCID": str(rank),
            "SLURM_NTASKS": str(self.workers),
            "SLURM_LOCALID": str(rank),
            "SLURM_STEP_ID": "0",
            "SLURM_STEP_TASKS_PER_NODE": str(self.workers),
            "SLURM_JOB_NODELIST": "localhost",
            "SLURM_JOB_ID": job,
        }

    @property
    def struck(self) -> int:
        """Process in which the fault has happened, or 0."""
        return next((notes.struck for notes in self.notes if notes.struck), 0)

    def wait_for_strike(self) -> None:
        """Until the fault happens, or the run ends without."""
        deadline = time.monotonic() + LIMIT
        while not self.struck and self._alive() and time.monotonic() < deadline:
            time.sleep(0.01)

    def end(self) -> Ended:
        """Wait until the launcher and all its ranks are gone; kill what hangs."""
        deadline = time.monotonic() + LIMIT
        while (alive := self._alive()) and time.monotonic() < deadline:
            time.sleep(0.01)
        if alive:
            os.killpg(self.launcher, signal.SIGKILL)
            while self._alive():
                time.sleep(0.01)
        return Ended([self._code(rank) for rank in range(self.workers)], self._errors(), alive)

    def pids(self) -> list[int]:
        """Of the ranks."""
        while not (text := (self.folder / "pids").read_text() if (self.folder / "pids").exists() else ""):
            time.sleep(0.01)
        return [int(word) for word in text.split()]

    def _alive(self) -> bool:
        bury()
        try:
            os.killpg(self.launcher, 0)
        except ProcessLookupError:
            return False
        return True

    def _code(self, rank: int) -> int:
        path = self.folder / f"{rank}.code"
        return int(path.read_text()) if path.exists() else -signal.SIGKILL

    def _errors(self) -> str:
        return "".join(path.read_text() for path in sorted(self.folder.glob("*.err")))
