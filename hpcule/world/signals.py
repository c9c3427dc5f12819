"""A request to stop is a flag, read at a step boundary; an orphan dies with its parent."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Sequence
from types import FrameType

PR_SET_PDEATHSIG = 1


OF_BATCH_SYSTEMS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
"""What batch systems send before they take the node away."""


class StopFlag:
    """Set by a signal: whichever a batch system sends. Without any signals, it is never set."""

    def __init__(self, signals: Sequence[signal.Signals] = OF_BATCH_SYSTEMS) -> None:
        self.name = ""
        self._pid = os.getpid()
        for number in signals:
            signal.signal(number, self._note)

    def __bool__(self) -> bool:
        return bool(self.name)

    def _note(self, number: int, frame: FrameType | None) -> None:
        # Batch systems signal forked helpers too, which inherit this handler.
        if os.getpid() == self._pid:
            self.name = signal.Signals(number).name


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent dies, so that no orphan writes while a resumed run does."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
