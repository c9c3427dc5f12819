"""Running a part of this package inside a caller's process, or as a command of its own with several workers."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from hpcule.config.errors import (
    HpculeError,
    PeerLostError,
    StoppedError,
    StoreError,
    UsageError,
    WorkerError,
)
from hpcule.world.signals import environment_of_child

if TYPE_CHECKING:
    from hpcule.config.run import WorldConfig
    from hpcule.config.tree import Tree
    from hpcule.world.group import World

Progress = Callable[[str, int, int], None]
"""Called with the name of a stage, the number of its steps that are done, and the number of all its steps."""

log = logging.getLogger("hpcule")

_PROGRESS = re.compile(r"hpcule: (.+) (\d+)/(\d+)")
_ERRORS = {error.exit_code: error for error in (UsageError, PeerLostError, StoppedError)}
_STOP_SECONDS = 60
"""How long a command may take to save and stop, once it is asked to."""


def note_progress(progress: Progress | None) -> Progress:
    """What is called at every step: the caller's function, or a line of the logger `hpcule` at level DEBUG."""
    return progress or (lambda stage, done, total: log.debug("%s %d/%d", stage, done, total))


@contextmanager
def one_worker(config: WorldConfig, *, deterministic: bool = False) -> Iterator[World]:
    """A world of this process alone, which afterwards has the threads and the switches of torch that it had before.

    Raises:
        UsageError: the device is not there, or a launcher started several processes of this program.
    """
    import torch

    from hpcule.world.group import CUBLAS_WORKSPACE, connected
    from hpcule.world.launcher import Place

    require_single()
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    threads = torch.get_num_threads()
    device = torch.cuda.current_device() if torch.cuda.is_available() else None
    tf32, cudnn_tf32, benchmark = matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark
    mode, workspace = torch.get_deterministic_debug_mode(), os.environ.get(CUBLAS_WORKSPACE)
    try:
        with connected(Place("single"), config, deterministic=deterministic) as world:
            yield world
    finally:
        torch.set_num_threads(threads)
        matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark = tf32, cudnn_tf32, benchmark
        torch.set_deterministic_debug_mode(mode)
        if workspace is None:
            os.environ.pop(CUBLAS_WORKSPACE, None)
        if device is not None:
            torch.cuda.set_device(device)


def require_single() -> None:
    """Refuse to run in one of several processes that a launcher started: each would do the whole work.

    Raises:
        UsageError: there are several.
    """
    from hpcule.world.launcher import detect

    place = detect()
    if place.size > 1:
        raise UsageError(
            f"{place.launcher} started {place.size} processes of this program, and each would do all of the work: "
            "start one, with workers=N, or start the command `hpcule` under the launcher"
        )


def run_command(arguments: Sequence[str], workers: int, progress: Progress | None) -> Tree:
    """Run `hpcule ARGUMENTS --workers N --json` as a command of its own and return what it prints.

    It finds modules where this process finds them. An interrupt (Ctrl-C, the notebook's stop button) stops it as a
    batch system would: it saves what it has.

    Raises:
        HpculeError: it failed; the message is its own.
    """
    require_single()
    report = note_progress(progress)
    environment = {**environment_of_child(), "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-m", "hpcule", *arguments, "--workers", str(workers), "--json"]
    said: deque[str] = deque(maxlen=20)
    with (
        tempfile.TemporaryFile("w+") as printed,  # a pipe that nobody reads fills up
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=printed, stderr=subprocess.PIPE, text=True, env=environment
        ) as process,
    ):
        assert process.stderr is not None
        try:
            for line in process.stderr:
                if found := _PROGRESS.match(line):
                    report(found[1], int(found[2]), int(found[3]))
                elif line.strip():
                    said.append(line.strip())
                    log.info("%s", line.strip())
            code = process.wait()
        except BaseException:
            _stop(process)
            raise
        if code:
            raise _error(code, said)
        printed.seek(0)
        results: Tree = json.load(printed)
    return results


def _stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.communicate(timeout=_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()


def _error(code: int, said: Sequence[str]) -> HpculeError:
    own = [line.removeprefix("hpcule: ") for line in said if line.startswith("hpcule: ")]
    text = own[-1] if own else f"the command ended with code {code}: {said[-1] if said else 'it said nothing'}"
    known = _ERRORS.get(code) or (StoreError if text.startswith("store ") else WorkerError)
    return known(text)
