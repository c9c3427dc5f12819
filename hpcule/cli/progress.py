"""Progress: one line with a bar on a terminal, a new line every few seconds elsewhere, on rank 0 only."""

from __future__ import annotations

import sys
import time
from types import TracebackType

SECONDS_BETWEEN_LINES = 5.0


class Progress:
    """Shows how far the current stage of a run is, on standard error.

    Attributes:
        left: what is left of the whole run, for the end of each line; "" where nobody knows.
    """

    def __init__(self, *, shown: bool = True) -> None:
        self.left, self._shown = "", shown
        self._last = time.monotonic()
        self._bar = None
        if shown and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
            from rich.progress import Progress as Bar

            text = TextColumn("{task.description}", markup=False)
            left = TextColumn("{task.fields[left]}", markup=False)
            console = Console(stderr=True)
            self._bar = Bar(text, BarColumn(20), MofNCompleteColumn(), left, console=console, transient=True)
            self._task = self._bar.add_task("", total=None, left="")

    def __enter__(self) -> Progress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, stage: str, done: int, total: int, note: str = "") -> None:
        """Say that `done` of `total` steps of a stage are done."""
        if not self._shown:
            return
        left = f"{note}, {self.left}" if self.left else note
        if self._bar is not None:
            shown = left.removeprefix(", ")
            self._bar.update(self._task, description=stage, completed=done, total=total, left=shown)
            return
        now = time.monotonic()
        if now - self._last >= SECONDS_BETWEEN_LINES:
            self._last = now
            print(f"hpcule: {stage} {done}/{total}{left}", file=sys.stderr, flush=True)
