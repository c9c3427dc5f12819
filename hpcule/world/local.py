"""`--workers N`: N processes on this machine, which meet in a private folder and end with the one that started them."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hpcule.config.errors import HpculeError, PeerLostError, PeerTimeoutError, StoppedError, UsageError, WorkerError
from hpcule.world.launcher import MEETING, Place, error_file
from hpcule.world.launcher_variables import TORCHRUN
from hpcule.world.meeting import prepare
from hpcule.world.preconditions import require_descriptors
from hpcule.world.signals import environment_of_child, forwarded, held_back, stopped_text, unhurried

SHUTDOWN_SECONDS = 60
"""Seconds between forwarding a signal and killing; a checkpoint takes less."""
GRACE_SECONDS = 3
"""Seconds that the other ranks get when one has failed, to notice it; and again when they are asked to stop."""
POLL_SECONDS = 0.05
HINTS = {
    "SIGKILL": "; the kernel kills with SIGKILL when memory runs out",
    "SIGABRT": "; NCCL ends a rank with SIGABRT when another one does not answer within world.timeout_seconds",
}
"""What a signal that nobody here has sent usually means."""


@dataclass(frozen=True)
class Failure:
    """A rank that has failed.

    Attributes:
        pid: its process.
        exitcode: negative: the signal that killed it.
        error_file: where it has left its own error, if it could.
        given_up: whether it had to be killed, as it did not heed the request to stop.
    """

    pid: int
    exitcode: int
    error_file: Path
    given_up: bool = False


def run_workers(arguments: Sequence[str], workers: int) -> None:
    """Run `python -m hpcule ARGUMENTS` as ranks 0..workers-1 on this machine and wait for them.

    Raises:
        WorkerError: a worker died or failed; names the rank, the host, and its own error.
        StoppedError: the run was stopped by a signal.
        UsageError: a worker refused the command as wrong use, the ranks cannot meet in TMPDIR, or there are too many
            for the limit of open files.
    """
    with tempfile.TemporaryDirectory(prefix="hpcule-") as name, unhurried():
        folder = Path(name)
        require_descriptors(workers, socket.gethostname())
        prepare(folder)
        ranks = _Ranks(folder)
        with forwarded(ranks.send):
            try:
                ranks.start(arguments, workers)
                failures = ranks.wait()
            finally:
                ranks.kill()
        if failures:
            raise _explain(failures, ranks.stopped_by)


class _Ranks:
    """The processes, by rank."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []
        self._kill_at = float("inf")
        self._given_up: set[int] = set()
        self.stopped_by = ""

    def start(self, arguments: Sequence[str], workers: int) -> None:
        """Start all; a signal that arrives meanwhile reaches every one of them."""
        environ = {**environment_of_child(), MEETING: str(self._folder)}
        command = [sys.executable, "-m", "hpcule", *arguments]
        with held_back():
            for rank in range(workers):
                numbers = {"rank": rank, "size": workers, "local_rank": rank, "local_size": workers}
                own = {TORCHRUN[name]: str(number) for name, number in numbers.items()}
                # A session of its own: a terminal's Ctrl-C reaches them through us, once.
                self._processes.append(subprocess.Popen(command, env={**environ, **own}, start_new_session=True))

    def send(self, number: int) -> None:
        """Pass a signal on, and kill later what it does not end."""
        self.stopped_by = self.stopped_by or signal.Signals(number).name
        self._kill_at = min(self._kill_at, time.monotonic() + SHUTDOWN_SECONDS)
        self._signal(number)

    def wait(self) -> dict[int, Failure]:
        """Wait until all have ended, or one has failed and the others have had time to notice; the failed ones."""
        failed_at, asked = float("inf"), False
        while None in (codes := [process.poll() for process in self._processes]):
            now = time.monotonic()
            if any(codes):
                failed_at = min(failed_at, now)
            if now > failed_at + GRACE_SECONDS and not asked:
                asked = True
                self._signal(signal.SIGTERM)
            if now > min(self._kill_at, failed_at + 3 * GRACE_SECONDS):
                self._given_up |= {rank for rank, code in enumerate(codes) if code is None}
                self.kill()
            time.sleep(POLL_SECONDS)
        return {
            rank: Failure(process.pid, process.returncode, error_file(self._folder, rank), rank in self._given_up)
            for rank, process in enumerate(self._processes)
            if process.returncode
        }

    def kill(self) -> None:
        """End those that are left."""
        self._signal(signal.SIGKILL)
        for process in self._processes:
            process.wait()

    def _signal(self, number: int) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(number)


def report_failure(place: Place, error: BaseException) -> None:
    """Leave this rank's error where whoever started it finds it: `run_workers`, or torch's elastic agent."""
    if not place.error_file:
        return
    foreseen = isinstance(error, HpculeError | KeyboardInterrupt)
    text = str(error) if foreseen else f"{type(error).__name__}: {error}"
    # The agent shows this instead of the message.
    shown = f"hpcule: rank {place.rank} on {place.host}: {text}" if foreseen else traceback.format_exc()
    kind = StoppedError if isinstance(error, KeyboardInterrupt) else type(error)
    record = {
        "message": {
            "message": text,
            "class": kind.__name__,
            "extraInfo": {"py_callstack": shown, "timestamp": str(int(time.time()))},
        }
    }
    Path(place.error_file).write_text(json.dumps(record))


def _explain(failures: dict[int, Failure], stopped_by: str = "") -> HpculeError:
    """The culprit among the failed workers, whatever the clock says: the others are its victims.

    A worker that leaves no error after the signal `stopped_by` had no time to.
    """
    records = {rank: _record(failure.error_file) for rank, failure in failures.items()}
    rank = min(failures, key=lambda rank: (_remoteness(failures[rank], records[rank], stopped_by), rank))
    failure, record = failures[rank], records[rank]
    for kind in (UsageError, StoppedError):
        if record.get("class") == kind.__name__:
            return kind(record["message"])
    host = socket.gethostname()
    if stopped_by and not record:
        return StoppedError(stopped_text(stopped_by))
    if record.get("class") == PeerTimeoutError.__name__:
        silent = [
            f"rank {other} (process {failures[other].pid})" for other in sorted(failures) if failures[other].given_up
        ]
        rest = f"; killed, as it did not answer: {', '.join(silent)}" if silent else ""
        return WorkerError(f"rank {rank} on {host}: {record['message']}{rest}")
    if failure.exitcode < 0:
        name = signal.Signals(-failure.exitcode).name
        return WorkerError(f"rank {rank} on {host} was killed by {name} (process {failure.pid}){HINTS.get(name, '')}")
    own = record.get("message", f"exit code {failure.exitcode}, no message")
    return WorkerError(f"rank {rank} on {host} failed: {own}")


def _remoteness(failure: Failure, record: dict[str, object], stopped_by: str) -> int:
    """How far a failure is from its cause: 0 for one of its own, 1 for a stop or a time-out, 2 where a rank only lost
    another or was ended by us."""
    if record.get("class") in (StoppedError.__name__, PeerTimeoutError.__name__):
        return 1
    if failure.given_up:
        return 2
    lost = record.get("class") == PeerLostError.__name__
    # In the middle of a long step our signal leaves it no time to write why.
    ended = failure.exitcode == -signal.SIGTERM or (failure.exitcode == StoppedError.exit_code and not record)
    return 2 if lost or ended or (stopped_by and not record) else 0


def _record(path: Path) -> dict[str, object]:
    try:
        message = json.loads(path.read_text())["message"]
    except (OSError, ValueError, KeyError):
        return {}
    return message if isinstance(message, dict) else {}
