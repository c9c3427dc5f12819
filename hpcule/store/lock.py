"""One run at a time in a store: a killed run's surviving process must never write while a resume does."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import secrets
import socket
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from hpcule.config.errors import StoreError
from hpcule.store.files import private_directory, storage_error

_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)
_BUSY = (errno.EAGAIN, errno.EACCES)
_log = logging.getLogger(__name__)


class StoreLock:
    """Context manager over STORE/run/lock; every process of a run holds it shared for as long as it lives.

    Rank 0 calls `exclusive_then_shared` first: it gets the file for itself only when no process of an older run is
    left. After a barrier the other ranks call `shared`. The kernel lets go when a process dies, however it dies.
    Where the file system has no locks (some Lustre and NFS mounts) the run goes on with a warning.

    Args:
        store: the folder, which is created where it is absent.
        patience: seconds to wait for a run that was killed a moment ago.
    """

    def __init__(self, store: Path, patience: float = 10.0) -> None:
        self._store = store
        self._path = store / "run" / "lock"
        self._patience = patience

    def __enter__(self) -> Self:
        for folder in (self._store, self._path.parent):
            if not folder.is_dir():
                private_directory(folder)
        try:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise storage_error(error, self._path, 0) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)

    def exclusive_then_shared(self) -> None:
        """Make sure that no other run is alive, sign the lock, and keep it shared.

        Raises:
            StoreError: another run holds the store; host and process are named.
        """
        if not self._acquire(fcntl.LOCK_EX):
            _log.warning("%s is on a file system without locks: start nothing else in this store", self._store)
            return
        signature = f"{socket.gethostname()} {os.getpid()} {secrets.token_hex(8)}"
        try:
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, signature.encode(), 0)
        except OSError as error:
            raise storage_error(error, self._path, len(signature)) from error
        self._acquire(fcntl.LOCK_SH)
        # Going from exclusive to shared is not atomic: another run may have come and signed in between.
        if self._read_signature() != signature:
            raise self._busy()

    def shared(self) -> None:
        """Join the run that rank 0 has signed.

        Raises:
            StoreError: another run holds the store; host and process are named.
        """
        self._acquire(fcntl.LOCK_SH)

    def _acquire(self, kind: int) -> bool:
        """Wait for the lock; return False where the file system has none."""
        deadline = time.monotonic() + self._patience
        while True:
            try:
                fcntl.flock(self._descriptor, kind | fcntl.LOCK_NB)
                return True
            except OSError as error:
                if error.errno in _NO_LOCKS:
                    return False
                if error.errno not in _BUSY:
                    raise storage_error(error, self._path, 0) from error
            if time.monotonic() > deadline:
                raise self._busy()
            time.sleep(0.05)

    def _read_signature(self) -> str:
        return os.pread(self._descriptor, 512, 0).decode(errors="replace")

    def _busy(self) -> StoreError:
        host, process, *_ = (*self._read_signature().split(), "unknown", "unknown")
        return StoreError(
            f"store {self._store} is in use by process {process} on {host}: wait until that run has ended, or stop it"
        )
