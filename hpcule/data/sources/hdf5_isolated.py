"""HDF5 files are first opened in a process of their own, which ends where a file crashes the HDF5 library.

The HDF5 library loops for ever, or reads memory that is not its own, on files that were written for that, and on some
that were damaged by accident. One process tries all files of this one, so that each costs milliseconds.
"""

from __future__ import annotations

import atexit
import json
import os
import resource
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache, partial
from math import prod
from pathlib import Path
from typing import Any, TypeVar

import h5py

from hpcule.config.errors import first_line
from hpcule.data.sources.hdf5_chunks import FILTERS, DecodedChunks, filters_of

_SECONDS = 3
"""Seconds of the processor that a call of the HDF5 library may take."""
_MEMORY = 2 << 30
"""Bytes of address space that the process may add to those of its start."""
_CHUNKS = 4096
"""Number of chunks whose sizes are compared in the time of a call."""
_LARGEST_CHUNK = 64 << 20
"""Bytes of a chunk that is read; larger ones could take all of the time."""
_REMEMBERED = 4096
"""Number of files that are not tried again while their size and time of change stay the same."""
_CRASHES = {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL}

_T = TypeVar("_T")


def require_harmless(path: Path, names: Sequence[str]) -> None:
    """Open a file in another process, with all that a reader does but for reading all samples.

    Whatever is wrong without doing harm is left for the reader to find.

    Args:
        path: a file, perhaps of HDF5.
        names: datasets that the reader may open.

    Raises:
        OSError: it is not a regular file, or crashes the HDF5 library, or keeps it busy, or takes too much memory.
    """
    facts = path.stat()
    if not stat.S_ISREG(facts.st_mode):
        raise OSError("not a regular file")
    _tried(str(path.absolute()), tuple(names), (facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns))


@lru_cache(_REMEMBERED)
def _tried(path: str, names: tuple[str, ...], identity: tuple[int, ...]) -> None:
    if harm := _trial.ask(path, names):
        raise OSError(harm)


class _Trial:
    """The process in which files are tried; it starts with the first one, and ends with a harmful one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None

    def ask(self, path: str, names: Sequence[str]) -> str:
        """What harm a file does; empty: none.

        Raises:
            OSError: no process can be started, or it ends at once.
        """
        request = json.dumps([path, names]) + "\n"
        with self._lock:
            # A signal to all processes of a job may have ended the one that was there.
            for _ in range(2):
                if (answer := self._answer(request)).endswith("\n"):
                    return answer[:-1]
                code = self.end()
                if code == -signal.SIGPROF:
                    return f"reading it keeps the HDF5 library busy for more than {_SECONDS} s"
                if -code in _CRASHES:
                    return f"reading it crashes the HDF5 library with {signal.Signals(-code).name}"
        raise OSError(f"the process that tries it first was ended ({code})")

    def end(self) -> int:
        """End the process, if there is one, and return how it ended."""
        if (process := self._process) is None:
            return 0
        self._process = None
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            with suppress(OSError):
                pipe.close()
        return process.wait()

    def forget(self) -> None:
        """Leave the process to the one that has forked this one."""
        if self._process is not None:
            self._process.returncode = 0  # as it is not this one's to wait for
        self._lock, self._process = threading.Lock(), None

    def _answer(self, request: str) -> str:
        if self._process is None:
            self._process = _start()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(request)
            self._process.stdin.flush()
            return self._process.stdout.readline()
        except BrokenPipeError:
            return ""
        except BaseException:
            self._process.kill()
            self.end()  # or its answer would be taken for that to the next request
            raise


def _start() -> subprocess.Popen[str]:
    command = [sys.executable, "-P", "-m", "hpcule.data.sources.hdf5_isolated"]
    paths = os.pathsep.join(path for path in sys.path if path)
    # Nothing is computed there, so numpy's libraries need no threads.
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, env=environment, text=True, encoding="ascii"
    )


_trial = _Trial()
atexit.register(_trial.end)
os.register_at_fork(after_in_child=_trial.forget)


def _try_all() -> None:
    """Try every file that is named on standard input, and print what harm it does on one line."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)  # the process that asks decides when it is over
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _limit_memory()
    for line in sys.stdin:
        harm = _harm(*json.loads(line))
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(harm.encode("ascii", "replace").decode(), flush=True)
        if harm:
            return


class _HarmError(Exception):
    """What a file would do to the process that opens it."""


def _harm(path: str, names: Sequence[str]) -> str:
    try:
        file = _called(lambda: h5py.File(path, "r", locking=False))
        if file is not None:
            _called(partial(list, file))
            _called(lambda: file.attrs.get("run_key"))
            for name in names:
                _try_dataset(file, name)
            _called(file.close)
    except _HarmError as harm:
        return first_line(harm)
    return ""


def _limit_memory() -> None:
    if sys.platform != "linux":
        return
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    most = pages * resource.getpagesize() + _MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most if hard < 0 else min(most, hard), hard))


def _called(call: Callable[[], _T]) -> _T | None:
    """Call the HDF5 library for a limited time; its errors are the reader's, who will see them too."""
    signal.setitimer(signal.ITIMER_PROF, _SECONDS)
    try:
        return call()
    except _HarmError:
        raise
    except Exception as error:
        if isinstance(error, MemoryError) or "allocation failed" in str(error):
            raise _HarmError(f"reading it takes more than {_MEMORY >> 30} GiB of memory") from None
        return None


def _try_dataset(file: h5py.File, name: str) -> None:
    if not isinstance(_called(partial(file.get, name, getlink=True)), h5py.HardLink):
        return
    found: Any = _called(partial(file.get, name))
    if not isinstance(found, h5py.Dataset):
        return
    _called(lambda: found.attrs.get("layout"))
    if _called(lambda: found.is_virtual):
        _called(lambda: [source.vspace.get_select_bounds() for source in found.virtual_sources()])
        return
    filters = _called(partial(filters_of, found))
    # Neither files elsewhere nor filters from elsewhere.
    if _called(lambda: found.external is None) and filters is not None and {code for code, *_ in filters} <= FILTERS:
        _called(found.id.get_storage_size)
        if _called(lambda: found.chunks) is not None:
            _called(found.id.get_num_chunks)
            _called(partial(_try_chunks, found))
        if _called(lambda: prod(found.chunks or ()) * found.dtype.itemsize <= _LARGEST_CHUNK):
            _called(lambda: found[:1])
            _called(lambda: found[-1:])


def _try_chunks(dataset: h5py.Dataset) -> None:
    decoded, seen = DecodedChunks(dataset), 0
    most = prod(-(-length // chunk) for length, chunk in zip(dataset.shape, dataset.chunks, strict=True))

    def compare(chunk: h5py.h5d.StoreInfo) -> None:
        nonlocal seen
        seen += 1
        if seen > most:
            raise ValueError("its chunks lead to each other")
        if not seen % _CHUNKS:
            signal.setitimer(signal.ITIMER_PROF, _SECONDS)
        decoded.require_size(chunk)

    try:
        dataset.id.chunk_iter(compare)
    except ValueError as error:
        raise _HarmError(f"damaged chunks: {first_line(error)}") from None


if __name__ == "__main__":
    _try_all()
