"""Faults inside a rank: something happens at the K-th operation on the store.

An operation is a call of Python's `os` on something inside the store that changes it or makes a change durable. They
are counted here, in the rank, before hpcule's own code runs; nothing in hpcule knows of it.
"""

from __future__ import annotations

import errno
import mmap
import os
import random
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

KINDS = ("open", "write", "pwrite", "fsync", "replace", "mkdir", "unlink", "rmdir", "ftruncate")
"""Names in `os`. What is opened without O_CREAT does not count; `write` is that of files made by `os.fdopen`, too."""
TARGETS = {
    "checkpoint": r"run/checkpoint-.*",
    "shard": r"shards/.*",
    "log": r"run/log-.*",
    "note": r"run/[^/]*\.json.*",
    "manifest": r"\.?manifest.*",
    "folder": r"|run|shards",
    "other": r".*",
}
"""What is changed, by its path in the store; the first that fits."""
LATER = "after the first event"
"""All operations from the one on that notes or writes the first result of the method."""
OPERATIONS = [*(f"{kind} {target}" for kind in KINDS for target in TARGETS), LATER]
WRITES = ("write", "pwrite")
RENAMES = ("replace",)
HOURS = 3600.0


@dataclass(frozen=True)
class Fault:
    """What happens in one rank.

    Attributes:
        action: a name in ACTIONS.
        rank: where.
        operation: one of OPERATIONS.
        at: at which of those; from then on any operation is concerned.
        later: so many operations after that an action takes its second step, if it has one.
        seed: for an action that draws.
    """

    action: str
    rank: int
    operation: str
    at: int
    later: int
    seed: int


class Notes:
    """What a rank tells the program that started it, through memory that both map."""

    def __init__(self) -> None:
        self._memory = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("q")

    def count(self, operation: str) -> int:
        """Another operation: how many of the same there were before."""
        place = 1 + OPERATIONS.index(operation)
        self._memory[place] += 1
        return int(self._memory[place]) - 1

    def counted(self) -> dict[str, int]:
        """Operations so far, those that there were."""
        return {name: self._memory[1 + n] for n, name in enumerate(OPERATIONS) if self._memory[1 + n]}

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
    _after: int | None = None
    _begun: bool = False

    def arm(self) -> None:
        """Take the place of the functions in `os`."""
        for kind in KINDS:
            setattr(os, kind, partial(self._call, kind, getattr(os, kind)))
        fdopen = os.fdopen
        setattr(os, "fdopen", lambda *given, **named: _File(fdopen(*given, **named), self))  # noqa: B010

    def _call(self, kind: str, function: Callable[..., Any], *given: Any, **named: Any) -> Any:
        operation = partial(function, *given, **named)
        if kind == "open" and not given[1] & os.O_CREAT:
            return operation()
        return self.happens(kind, self.target(given[0], named.get("dir_fd")), operation, given)

    def happens(self, kind: str, target: str, operation: Operation, given: tuple[Any, ...]) -> Any:
        """Do an operation, with what the fault makes of it."""
        if not target:
            return operation()
        fault, name = self.fault, f"{kind} {target}"
        numbers = {name: self.notes.count(name)}
        self._begun = self._begun or target in ("shard", "checkpoint") or name == "write log"
        if self._begun:
            numbers[LATER] = self.notes.count(LATER)
        if fault is None:
            return operation()
        if self._after is not None:
            self._after += 1
        elif numbers.get(fault.operation) == fault.at:
            self._after = 0
            self.notes.strike()
        else:
            return operation()
        return ACTIONS[fault.action](Moment(self, fault, operation, kind, given, self._after))

    def target(self, place: Any, folder: int | None = None) -> str:
        """Which of TARGETS a path or descriptor is, or nothing outside the store."""
        if isinstance(place, int):
            place = _path_of(place)
        elif folder is not None:
            place = os.path.join(_path_of(folder), place)  # noqa: PTH118
        path = Path(place)
        if not path.is_relative_to(self.store):
            return ""
        inside = str(path.relative_to(self.store)).removeprefix(".")
        return next(name for name, pattern in TARGETS.items() if re.fullmatch(pattern, inside))


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
        target = self._injector.target(self._file.fileno())
        return self._injector.happens("write", target, partial(self._file.write, data), (self._file, data))


@dataclass(frozen=True)
class Moment:
    """An operation at or after the fault's.

    Attributes:
        operation: does what was asked for.
        kind: of KINDS.
        given: arguments of the call.
        after: how many operations ago the fault began.
    """

    injector: Injector
    fault: Fault
    operation: Operation
    kind: str
    given: tuple[Any, ...]
    after: int


Action = Callable[[Moment], Any]


def _kill(moment: Moment) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _kill_all(moment: Moment) -> None:
    os.killpg(0, signal.SIGKILL)


def _kill_soon(moment: Moment) -> Any:
    """All ranks at once, at most a tenth of a second from now: in the middle of whatever they do then."""
    if not moment.after:
        delay = random.Random(moment.fault.seed).uniform(0, 0.1)
        threading.Timer(delay, os.killpg, (0, signal.SIGKILL)).start()
    return moment.operation()


def _torn(moment: Moment) -> None:
    """Half of a write reaches the disk, and the machine goes down."""
    _half(moment)
    os.killpg(0, signal.SIGKILL)


def _signalled(number: int, moment: Moment) -> Any:
    if not moment.after:
        os.kill(os.getpid(), number)
    return moment.operation()


def _refused(code: int, moment: Moment) -> Any:
    """From now on nothing can be written; of the first write half comes through. A full disk lets files go."""
    if code == errno.ENOSPC and moment.kind in ("unlink", "rmdir"):
        return moment.operation()
    if not moment.after and moment.kind in WRITES and code != errno.EROFS:
        _half(moment)
    raise OSError(code, os.strerror(code))


def _fill(moment: Moment) -> Any:
    """Somebody else fills the disk beside the store."""
    if not moment.after:
        with (moment.injector.store.parent / "filler").open("wb", buffering=0) as file, suppress(OSError):
            while file.write(bytes(4096)):
                pass
    return moment.operation()


def _read_only(moment: Moment) -> Any:
    """The store's file system turns read-only; what is open for writing stays so."""
    if not moment.after:
        store = str(moment.injector.store)
        subprocess.run(["mount", "--bind", store, store], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", store], check=True)
    return moment.operation()


def _lie(zeros: bool, kill: bool, moment: Moment) -> Any:
    """A disk that said "written" too early: a file has its name, but its tail is missing or zeros.

    The machine goes down some operations later, which shows it, or never.
    """
    result = moment.operation()
    if not moment.after:
        path = Path(moment.given[1])
        size = path.stat().st_size
        os.truncate(path, size // 2)
        if zeros:
            os.truncate(path, size)
    if kill and moment.after == moment.fault.later:
        os.killpg(0, signal.SIGKILL)
    return result


def _slow(moment: Moment) -> Any:
    time.sleep(0.03)
    return moment.operation()


def _clock(moment: Moment) -> Any:
    """The clock jumps, by hours and back and forth, whenever it is read."""
    if not moment.after:
        now, draw = time.time, random.Random(moment.fault.seed)
        setattr(time, "time", lambda: now() + draw.uniform(-30, 30) * HOURS)  # noqa: B010
    return moment.operation()


ACTIONS: dict[str, Action] = {
    "kill": _kill,
    "kill all": _kill_all,
    "kill all soon": _kill_soon,
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


def _half(moment: Moment) -> None:
    """Write the first half of what is to be written."""
    file, data = moment.given[0], bytes(moment.given[1])
    half = data[: len(data) // 2]
    if isinstance(file, int):
        _WRITE(file, half)
    else:
        file.write(half)
        file.flush()


def _path_of(descriptor: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115
    except OSError:
        return ""


_WRITE = os.write
