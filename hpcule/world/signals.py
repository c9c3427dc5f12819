"""A request to stop is a flag, read at a step boundary; an orphan dies with its parent."""

from __future__ import annotations

import ctypes
import os
import signal
from types import FrameType

PR_SET_PDEATHSIG = 1


class StopFlag:
    """Set by TERM, USR1 or USR2: whichever a batch system sends before it takes the node away."""

    def __init__(self) -> None:
        self.name = ""
        self._pid = os.getpid()
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, self._note)

    def __bool__(self) -> bool:
        return bool(self.name)

    def _note(self, number: int, frame: FrameType | None) -> None:
        # Batch systems signal forked helpers too, which inherit this handler.
        if os.getpid() == self._pid:
            self.name = signal.Signals(number).name


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent dies, so that no orphan writes beside a resumed run."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
