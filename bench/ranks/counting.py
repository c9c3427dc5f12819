"""Counts what each rank asks of the file system: opens, stats, fsyncs, renames, listings, and what it makes or removes.

Python reports most of this to audit hooks, but neither stat nor fsync, whose functions are therefore replaced. Ranks
are processes, or threads of one process; a thread belongs to the rank of the thread that has started it.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

EVENTS = {
    "open": "opens",
    "os.listdir": "listings",
    "os.scandir": "listings",
    "os.rename": "renames",
    "os.mkdir": "makes",
    "os.remove": "removes",
    "os.rmdir": "removes",
}
KINDS = ("opens", "stats", "fsyncs", "renames", "listings", "makes", "removes")


class Counting:
    """What has been counted below some folders, by rank and kind; a process has one, for as long as it lives."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = tuple(str(folder) for folder in folders)
        self._ranks: dict[int, int] = {}
        self.counts: dict[int, Counter[str]] = {}
        self._replace()
        sys.addaudithook(self._hear)

    def take(self, folders: Sequence[Path]) -> None:
        """Count below these folders from now on, from zero."""
        self._folders = tuple(str(folder) for folder in folders)
        self.counts = {}

    def belong(self, rank: int) -> None:
        """Count what this thread and those that it starts do as this rank's."""
        self._ranks[threading.get_ident()] = rank

    def of(self, rank: int) -> dict[str, int]:
        """The counts of a rank by kind."""
        found = self.counts.get(rank, Counter())
        return {kind: found[kind] for kind in KINDS}

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in EVENTS:
            self._note(EVENTS[event], arguments[0])

    def _note(self, kind: str, path: object) -> None:
        if isinstance(path, int) and not isinstance(path, bool):
            return
        name = os.fsdecode(path) if isinstance(path, str | bytes | os.PathLike) else ""
        if name.startswith(self._folders):
            rank = self._ranks.get(threading.get_ident(), 0)
            self.counts.setdefault(rank, Counter())[kind] += 1

    def _replace(self) -> None:
        def counted(kind: str, function: Callable[..., Any]) -> Callable[..., Any]:
            def call(path: Any, *arguments: Any, **named: Any) -> Any:
                self._note(kind, path)
                return function(path, *arguments, **named)

            return call

        fsync, begin, run = os.fsync, threading.Thread.start, threading.Thread.run

        def synced(file: Any) -> None:
            self._note("fsyncs", Path(f"/proc/self/fd/{file if isinstance(file, int) else file.fileno()}").readlink())
            fsync(file)

        def started(thread: threading.Thread) -> None:
            thread.rank_ = self._ranks.get(threading.get_ident(), 0)  # type: ignore[attr-defined]
            begin(thread)

        def ran(thread: threading.Thread) -> None:
            self._ranks[threading.get_ident()] = thread.rank_  # type: ignore[attr-defined]
            run(thread)

        os.stat, os.lstat = counted("stats", os.stat), counted("stats", os.lstat)
        os.fsync = synced  # type: ignore[assignment]
        threading.Thread.start = started  # type: ignore[method-assign,assignment]
        threading.Thread.run = ran  # type: ignore[method-assign,assignment]
