"""Progress: a bar on a terminal, one line every few seconds elsewhere, on rank 0 only."""

from __future__ import annotations

import sys
import time
from types import TracebackType

SECONDS_BETWEEN_LINES = 5.0


class Progress:
    """Shows how far each stage of a run is, on standard error."""

    def __init__(self, *, shown: bool = True) -> None:
        self._shown = shown
        self._last = time.monotonic()
        self._bar = None
        if shown and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import Progress as Bar

            self._bar = Bar(console=Console(stderr=True), transient=True)
            self._tasks: dict[str, int] = {}

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
        if self._bar is not None:
            from rich.progress import TaskID

            if stage not in self._tasks:
                self._tasks[stage] = int(self._bar.add_task(stage, total=total))
            self._bar.update(TaskID(self._tasks[stage]), completed=done, total=total)
            return
        now = time.monotonic()
        if now - self._last >= SECONDS_BETWEEN_LINES:
            self._last = now
            print(f"hpcule: {stage} {done}/{total}{note}", file=sys.stderr, flush=True)
