"""`--workers N`: N local processes, started and watched by torch's elastic launch."""

from __future__ import annotations

import json
import logging
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hpcule.config.errors import HpculeError, PeerLostError, StoppedError, UsageError, WorkerError
from hpcule.world.launcher import Place

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

SHUTDOWN_SECONDS = 60
"""Seconds between forwarding a signal and killing; a checkpoint takes less."""


def run_workers(arguments: Sequence[str], workers: int) -> None:
    """Run `python -m hpcule ARGUMENTS` as ranks 0..workers-1 on this machine and wait for them.

    Raises:
        WorkerError: a worker died or failed; names the rank, the host, and its own error.
        StoppedError: the run was stopped by a signal.
        UsageError: a worker refused the command as wrong use.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="hpcule-") as folder:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=workers,
            run_id=f"hpcule-{workers}",
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="localhost",
            max_restarts=0,
            monitor_interval=0.1,
            logs_specs=DefaultLogsSpecs(log_dir=folder),
            signals_to_handle="SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1,SIGUSR2",
            shutdown_timeout=SHUTDOWN_SECONDS,
        )
        try:
            elastic_launch(config, sys.executable)("-m", "hpcule", *arguments)
        except ChildFailedError as error:
            raise _explain(error.failures) from None
        except SignalException as error:
            name = signal.Signals(error.sigval).name
            raise StoppedError(f"stopped by {name}: run the same command with --resume to continue") from None


def report_failure(place: Place, error: BaseException) -> None:
    """Leave this worker's error where the elastic agent finds it."""
    if not place.error_file:
        return
    text = str(error) if isinstance(error, HpculeError) else f"{type(error).__name__}: {error}"
    record = {
        "message": {
            "message": text,
            "class": type(error).__name__,
            "extraInfo": {"py_callstack": traceback.format_exc(), "timestamp": str(int(time.time()))},
        }
    }
    Path(place.error_file).write_text(json.dumps(record))


def _explain(failures: Mapping[int, ProcessFailure]) -> HpculeError:
    """The culprit among the failed workers, whatever the clock says: the others are its victims."""
    records = {rank: _record(failure.error_file) for rank, failure in failures.items()}
    rank = min(failures, key=lambda rank: (_is_consequence(failures[rank], records[rank]), rank))
    failure, record = failures[rank], records[rank]
    for kind in (UsageError, StoppedError):
        if record.get("class") == kind.__name__:
            return kind(record["message"])
    host = socket.gethostname()
    if failure.exitcode < 0:
        name = signal.Signals(-failure.exitcode).name
        hint = "; the kernel kills with SIGKILL when memory runs out" if name == "SIGKILL" else ""
        return WorkerError(f"rank {rank} on {host} was killed by {name} (process {failure.pid}){hint}")
    own = record.get("message", f"exit code {failure.exitcode}, no message")
    return WorkerError(f"rank {rank} on {host} failed: {own}")


def _is_consequence(failure: ProcessFailure, record: Mapping[str, object]) -> bool:
    """Whether a rank failed only because it lost its peer, or because the agent stopped it after another's failure."""
    lost = record.get("class") in (PeerLostError.__name__, StoppedError.__name__)
    return lost or failure.exitcode == -signal.SIGTERM


def _record(path: str) -> dict[str, object]:
    try:
        message = json.loads(Path(path).read_text())["message"]
    except (OSError, ValueError, KeyError):
        return {}
    return message if isinstance(message, dict) else {}
