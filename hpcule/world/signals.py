"""Signals end a process at a safe point and soon; a process dies with the one that started it."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from hpcule.config.errors import StoppedError, UsageError

PR_SET_PDEATHSIG = 1
PARENT = "HPCULE_PARENT"
"""Variable that names the process that a child belongs to."""
STOP_AT = "HPCULE_STOP_AT"
"""Variable with the time, in seconds since 1970, at which a command stops by itself as after SIGUSR2: jobs whose batch
system sends no signal before their time limit, or whose launcher passes none on, set it."""
OF_BATCH_SYSTEMS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
"""What batch systems send before they take the node away."""
STOPPING = (signal.SIGINT, *OF_BATCH_SYSTEMS, signal.SIGHUP)
URGENT = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals after which a process has ended within seconds; the others are sent minutes before the end."""
STEP_SECONDS = 3.5
"""How long after an urgent signal the end of a step may take; then the step is given up."""
LAST_SECONDS = 4.5
"""How long after an urgent signal the process may live, unless it writes a checkpoint."""


class Interrupted(KeyboardInterrupt):
    """A signal has asked the process to stop; no handler of errors takes it for an error.

    Attributes:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        """Keep the signal."""
        super().__init__(stopped_text(signal.Signals(number).name))
        self.number = number


def stopped_text(name: str) -> str:
    """What a process says that a signal has stopped."""
    return f"stopped by {name}: run the same command again to continue, craft with --resume"


class StopFlag:
    """Set by a signal that arrives while it is watched. Without any signals, it is never set."""

    def __init__(self, signals: Sequence[signal.Signals] = STOPPING) -> None:
        self.name = ""
        self._signals = signals

    def __bool__(self) -> bool:
        return bool(self.name)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Note signals as long as the context lasts, instead of whatever they do otherwise.

        Raises:
            StoppedError: the flag was set for seconds by an urgent signal, and nobody has looked at it.
        """
        owner = os.getpid()
        # An exception that a library has swallowed does not make the request undone.
        self.name = self.name or _asked()

        def note(number: int, frame: FrameType | None) -> None:
            # Batch systems signal forked helpers too, which inherit this handler.
            if os.getpid() != owner:
                return
            self.name = self.name or _asked() or signal.Signals(number).name
            if _guard is not None and _guard.step_expired:
                raise StoppedError(
                    f"stopped by {self.name} within a step: run the same command again, craft with --resume, to "
                    "continue from the last checkpoint"
                )

        with _handled(self._signals, note):
            yield


def stop_flag() -> StopFlag:
    """A flag for signals to a command of ours; in another program, such as a notebook, signals belong to that."""
    return StopFlag(STOPPING if _guard is not None else ())


def stop_on_signals(*, quietly: bool) -> None:
    """Let signals raise `Interrupted`, for the whole life of this process, and let none outlive an urgent one by long.

    The first signal is a request, which a `StopFlag` may note instead. Whatever the main thread does, a second SIGINT
    ends the process at once, and so does an urgent signal that was not heeded within seconds.

    Args:
        quietly: say nothing then, as another process will.
    """
    global _guard
    owner, asked = os.getpid(), False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if os.getpid() != owner:  # a forked helper, which inherits this handler
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        elif not asked:  # what cleans up after the first signal is left in peace by the next
            asked = True
            raise Interrupted(number)

    _guard = _Guard(quietly)
    # The guard's thread inherits this mask. Without it the kernel hands it what `held_back` keeps from the main thread.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    _guard.start()
    os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))
    for number in _heard(STOPPING):
        signal.signal(number, interrupt)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)


def stop_in_time() -> None:
    """Ask this process to stop at the time that the environment sets, if it does.

    Raises:
        UsageError: what it sets is no time.
    """
    moment = os.environ.get(STOP_AT)
    if not moment:
        return
    try:
        seconds = float(moment) - time.time()
    except ValueError:
        raise UsageError(f"{STOP_AT} must be a time in seconds since 1970, not {moment!r}") from None
    timer = threading.Timer(max(0.0, seconds), os.kill, (os.getpid(), signal.SIGUSR2))
    timer.daemon = True
    timer.start()


@contextmanager
def unhurried() -> Iterator[None]:
    """Let the block finish after an urgent signal, however long it takes; a second SIGINT ends it all the same."""
    if _guard is None:
        yield
        return
    _guard.patience += 1
    try:
        yield
    finally:
        _guard.patience -= 1


@contextmanager
def forwarded(send: Callable[[int], None]) -> Iterator[None]:
    """Call `send` with each signal that arrives, as long as the context lasts."""

    def forward(number: int, frame: FrameType | None) -> None:
        send(number)

    with _handled(STOPPING, forward):
        yield


@contextmanager
def held_back() -> Iterator[None]:
    """Deliver signals only after the context; programs that are started in it see none before `stop_on_signals`."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def environment_of_child() -> dict[str, str]:
    """The environment of a process that must not outlive this one, where it calls `die_with_parent` first of all."""
    return {**os.environ, PARENT: str(os.getpid())}


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent dies, so that no orphan writes while a resumed run does.

    Nothing happens where neither hpcule nor torch's elastic agent started this process, or off Linux. A parent that has
    died already is no longer ours: then this process ends here.
    """
    parent = os.environ.pop(PARENT, str(os.getppid()) if "TORCHELASTIC_RUN_ID" in os.environ else "")
    if not parent.isdecimal() or sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):
        os._exit(128 + signal.SIGKILL)


class _Guard(threading.Thread):
    """Sees signals even where the main thread is inside a long call of C code, which delays its handlers."""

    def __init__(self, quietly: bool) -> None:
        super().__init__(name="signals", daemon=True)
        self._quietly = quietly
        self.asked = 0
        self.step_expired = False
        self.patience = 0
        self._arrived, self._write = os.pipe()
        os.set_blocking(self._write, False)
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)

    def run(self) -> None:
        """Wait for the first urgent signal, then for a second SIGINT or the end of patience."""
        number = self._next(None)
        while number not in URGENT:
            number = self._next(None)
        self.asked, begin, interrupts = number, time.monotonic(), int(number == signal.SIGINT)
        while True:
            limit = LAST_SECONDS if self.step_expired else STEP_SECONDS
            later = self._next(max(0.05, begin + limit - time.monotonic()))
            interrupts += later == signal.SIGINT
            if interrupts > 1:
                os._exit(128 + signal.SIGINT)
            if later is None:
                self._hurry(time.monotonic() - begin)

    def _next(self, seconds: float | None) -> int | None:
        """The next signal that arrives, or None after that many seconds."""
        ready, _, _ = select.select([self._arrived], [], [], seconds)
        return os.read(self._arrived, 1)[0] if ready else None

    def _hurry(self, waited: float) -> None:
        if self.patience:
            return
        if not self.step_expired:
            self.step_expired = True
            # Any but SIGINT, whose second is final; handlers learn from `asked` what it was about.
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
        elif waited >= LAST_SECONDS:
            if not self._quietly:
                os.write(2, f"hpcule: {stopped_text(signal.Signals(self.asked).name)}\n".encode())
            os._exit(128 + signal.SIGINT if self.asked == signal.SIGINT else StoppedError.exit_code)


_guard: _Guard | None = None


def _asked() -> str:
    """The urgent signal that has asked this process to stop, or ""."""
    return signal.Signals(_guard.asked).name if _guard is not None and _guard.asked else ""


@contextmanager
def _handled(signals: Sequence[signal.Signals], handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in _heard(signals)}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


def _heard(signals: Sequence[signal.Signals]) -> list[signal.Signals]:
    """The signals without those that nohup and shells in the background make their programs ignore."""
    ignorable = (signal.SIGINT, signal.SIGHUP)
    return [n for n in signals if n not in ignorable or signal.getsignal(n) is not signal.SIG_IGN]
