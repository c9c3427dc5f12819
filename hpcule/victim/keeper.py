"""A training that saves its state now and then, stops when it is asked to, and goes on where it was."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch

from hpcule.config.errors import StoppedError, StoreError
from hpcule.store.files import discard, private_directory, write_atomically
from hpcule.store.state import pack_state, unpack_state
from hpcule.world.group import World
from hpcule.world.progress import note_saved
from hpcule.world.signals import StopFlag, stop_flag, unhurried

AGREEMENT_SECONDS = 0.5
"""How often several ranks agree whether to save or to stop; a single one asks itself after every step."""


class Keeper:
    """What a training asks after every step: whether its state is saved now, and whether it stops there.

    All ranks of the training ask together, and rank 0 alone reads and writes the file.
    """

    def __init__(self, world: World, path: Path | None = None, stop: StopFlag | None = None) -> None:
        """Take where the state is kept.

        Args:
            world: the ranks that train together.
            path: file of the state, named by all that the training depends on; None: nothing is saved, and signals do
                what they do otherwise.
            stop: set where the training is to stop; None: signals set it.
        """
        self._world, self._path = world, path
        self._stop = stop_flag() if stop is None else stop
        self._saved_at = self._asked_at = time.monotonic()
        self._steps, self._pause = 0, 1

    def saved(self) -> Mapping[str, object] | None:
        """The state that was saved last, on every rank; None: the training begins.

        Raises:
            StoreError: the file is damaged.
        """
        data = self._read() if self._world.leads else bytearray()
        size = self._world.gather(len(data))[0]
        if self._path is None or not size:
            return None
        received = torch.frombuffer(data or bytearray(size), dtype=torch.uint8)
        try:
            return unpack_state(self._world.broadcast(received).numpy().tobytes())
        except Exception as error:  # torch raises whatever its zip reader and its unpickler do
            raise StoreError(
                f"checkpoint {self._path} is damaged ({error}): remove it, and this training begins again"
            ) from error

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Let signals wait for the next `ask`, as long as the context lasts."""
        if self._path is None:
            yield
            return
        self._saved_at = self._asked_at = time.monotonic()
        with self._stop.watched():
            yield

    def ask(self, state: Callable[[], Mapping[str, object]]) -> None:
        """Save where it is time to, or where the training stops.

        Args:
            state: tensors, numbers, texts, and lists and dicts of them, from which the training goes on; a collective.

        Raises:
            StoppedError: a signal has asked any rank to stop; the state is saved.
            StoreError: the state cannot be written.
        """
        self._steps += 1
        if self._path is None or self._steps < self._pause:
            return
        now, world = time.monotonic(), self._world
        due = world.leads and now - self._saved_at >= world.checkpoint_seconds
        pace = (now - self._asked_at) / self._steps
        stopping, saving, pace = world.maximum([bool(self._stop), due, pace])
        if stopping or saving:
            self.save(state)
        if stopping:
            reason = self._stop.name or "a signal to another rank"
            raise StoppedError(f"stopped by {reason}, saved: run the same command again to continue")
        self._asked_at, self._steps = now, 0
        self._pause = max(1, int(AGREEMENT_SECONDS / pace)) if world.size > 1 and pace > 0 else 1

    def save(self, state: Callable[[], Mapping[str, object]]) -> None:
        """Save now, if anything is kept at all; a collective.

        Raises:
            StoreError: the state cannot be written.
        """
        if self._path is None:
            return
        with unhurried():
            self._write(state())
        self._saved_at = time.monotonic()

    def in_same_folder(self, name: str) -> Keeper:
        """A keeper of another state, in a file of this name next to this one's; without a file where this has none."""
        return Keeper(self._world, self._path and self._path.with_name(name), self._stop)

    def discard(self) -> None:
        """Remove the file, once nobody needs it."""
        if self._path is not None:
            discard(self._path)

    def _read(self) -> bytearray:
        """The file's bytes; none where there is no file."""
        if self._path is None or not self._path.exists():
            return bytearray()
        return bytearray(self._path.read_bytes())

    def _write(self, state: Mapping[str, object]) -> None:
        if self._world.leads:
            assert self._path is not None
            private_directory(self._path.parent)
            write_atomically(self._path, pack_state(state))
            note_saved()
        # A rank that ends earlier would have the others ended while rank 0 writes.
        self._world.barrier()
