"""Faults inside a rank: something happens at the K-th operation on the store.

An operation is a call of Python's `os` on something inside the store that changes it or makes a change durable. They
are counted here, in the rank, before hpcule's own code runs; nothing in hpcule knows of it.
"""

from __future__ import annotations

import errno
import mmap
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

KINDS = ("open", "write", "pwrite", "fsync", "replace", "mkdir", "unlink", "rmdir", "ftruncate")
"""Names in `os`. What is opened without O_CREAT does not count; `write` is that of files made by `os.fdopen`, too."""
WRITES = ("write", "pwrite")
RENAMES = ("replace",)
HOURS = 3600.0
NEVER = -1


@dataclass(frozen=True)
class Fault:
    """What happens in one rank: `action` (a name in ACTIONS) at operation `at`, counted among `kinds` alone."""

    action: str
    rank: int
    at: int
    kinds: tuple[str, ...] = KINDS
    seed: int = 0


class Notes:
    """What a rank tells the program that started it, through memory that both map."""

    def __init__(self) -> None:
        self._memory = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("q")

    def count(self, kind: str) -> None:
        """Another operation."""
        self._memory[1 + KINDS.index(kind)] += 1

    def counted(self, kinds: tuple[str, ...]) -> int:
        """Operations of these kinds so far."""
        return sum(self._memory[1 + KINDS.index(kind)] for kind in kinds)

    @property
    def struck(self) -> int:
        """Process in which the fault has happened, or 0."""
        return int(self._memory[0])

    def strike(self) -> None:
        """It happens now, here."""
        self._memory[0] = os.getpid()


Operation = Callable[[], Any]


@dataclass
class Injector:
    """Stands between `os` and this process."""

    store: Path
    notes: Notes
    fault: Fault | None

    def arm(self) -> None:
        """Take the place of the functions in `os`."""
        for kind in KINDS:
            setattr(os, kind, partial(self._call, kind, getattr(os, kind)))
        fdopen = os.fdopen
        setattr(os, "fdopen", lambda *given, **named: _File(fdopen(*given, **named), self))  # noqa: B010

    def _call(self, kind: str, function: Callable[..., Any], *given: Any, **named: Any) -> Any:
        counts = self._concerned(given[0], named.get("dir_fd")) and (kind != "open" or given[1] & os.O_CREAT)
        operation = partial(function, *given, **named)
        return self.happens(kind, operation, given) if counts else operation()

    def happens(self, kind: str, operation: Operation, given: tuple[Any, ...]) -> Any:
        """Do an operation, with the fault if it is the one."""
        fault = self.fault
        number = self.notes.counted(fault.kinds if fault else KINDS)
        self.notes.count(kind)
        if fault is None or kind not in fault.kinds or number < fault.at:
            return operation()
        first = number == fault.at
        if first:
            self.notes.strike()
        return ACTIONS[fault.action](self, operation, kind, given, first)

    def _concerned(self, place: Any, folder: int | None) -> bool:
        if isinstance(place, int):
            place = _path_of(place)
        elif folder is not None:
            place = os.path.join(_path_of(folder), place)  # noqa: PTH118
        return str(place).startswith(str(self.store))


class _File:
    """A file whose writes are operations."""

    def __init__(self, file: Any, injector: Injector) -> None:
        self._file, self._injector = file, injector

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, data: Any) -> Any:
        """As of any file."""
        if not self._injector._concerned(self._file.fileno(), None):
            return self._file.write(data)
        return self._injector.happens("write", partial(self._file.write, data), (self._file, data))


Action = Callable[[Injector, Operation, str, tuple[Any, ...], bool], Any]


def _kill(injector: Injector, operation: Operation, kind: str, given: tuple[Any, ...], first: bool) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _kill_all(injector: Injector, operation: Operation, kind: str, given: tuple[Any, ...], first: bool) -> None:
    os.killpg(0, signal.SIGKILL)


def _torn(injector: Injector, operation: Operation, kind: str, given: tuple[Any, ...], first: bool) -> None:
    """Half of a write reaches the disk, and the machine goes down."""
    _half(kind, given)
    os.killpg(0, signal.SIGKILL)


def _signalled(
    number: int, injector: Injector, operation: Operation, kind: str, given: tuple[Any, ...], first: bool
) -> Any:
    if first:
        os.kill(os.getpid(), number)
    return operation()


def _refused(
    code: int, injector: Injector, operation: Operation, kind: str, given: tuple[Any, ...], first: bool
) -> Any:
    """From now on nothing can be written; of the first write half comes through. A full disk lets files go."""
    if code == errno.ENOSPC and kind in ("unlink", "rmdir"):
        return operation()
    if first and kind in WRITES and code != errno.EROFS:
        _half(kind, given)
    raise OSError(code, os.strerror(code))


def _fill(injector: Injector, operation: Operation, kind: str, given: tuple[Any, ...], first: bool) -> Any:
    """Somebody else fills the disk beside the store."""
    if first:
        with (injector.store.parent / "filler").open("wb", buffering=0) as file:
            try:
                while file.write(bytes(4096)):
                    pass
            except OSError:
                pass
    return operation()


def _read_only(injector: Injector, operation: Operation, kind: str, given: tuple[Any, ...], first: bool) -> Any:
    """The store's file system turns read-only; what is open for writing stays so."""
    if first:
        store = str(injector.store)
        subprocess.run(["mount", "--bind", store, store], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", store], check=True)
    return operation()


def _lie(
    zeros: bool,
    kill: bool,
    injector: Injector,
    operation: Operation,
    kind: str,
    given: tuple[Any, ...],
    first: bool,
) -> Any:
    """A disk that said "written" too early: a file has its name, but its tail is missing or zeros."""
    result = operation()
    if first:
        path = Path(given[1])
        size = path.stat().st_size
        os.truncate(path, size // 2)
        if zeros:
            os.truncate(path, size)
        if kill:
            os.killpg(0, signal.SIGKILL)
    return result


def _slow(injector: Injector, operation: Operation, kind: str, given: tuple[Any, ...], first: bool) -> Any:
    time.sleep(0.03)
    return operation()


def _clock(injector: Injector, operation: Operation, kind: str, given: tuple[Any, ...], first: bool) -> Any:
    """The clock jumps, by hours and back and forth, whenever it is read."""
    if first:
        now, draw = time.time, random.Random(injector.fault.seed if injector.fault else 0)
        setattr(time, "time", lambda: now() + draw.uniform(-30, 30) * HOURS)  # noqa: B010
    return operation()


ACTIONS: dict[str, Action] = {
    "kill": _kill,
    "kill all": _kill_all,
    "torn": _torn,
    "stop": partial(_signalled, signal.SIGSTOP),
    "TERM": partial(_signalled, signal.SIGTERM),
    "USR1": partial(_signalled, signal.SIGUSR1),
    "ENOSPC": partial(_refused, errno.ENOSPC),
    "EROFS": partial(_refused, errno.EROFS),
    "EIO": partial(_refused, errno.EIO),
    "fill": _fill,
    "read-only": _read_only,
    "short, killed": partial(_lie, False, True),
    "zeros, killed": partial(_lie, True, True),
    "short": partial(_lie, False, False),
    "zeros": partial(_lie, True, False),
    "slow": _slow,
    "clock": _clock,
}


def _half(kind: str, given: tuple[Any, ...]) -> None:
    """Write the first half of what is to be written."""
    data = bytes(given[1])
    half = data[: len(data) // 2]
    if isinstance(given[0], int):
        os.lseek(given[0], 0, os.SEEK_SET) if kind == "pwrite" else None
        _WRITE(given[0], half)
    else:
        given[0].write(half)
        given[0].flush()


def _path_of(descriptor: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115
    except OSError:
        return ""


_WRITE = os.write
