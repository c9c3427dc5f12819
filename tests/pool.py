"""Ranks that are started once and then run one function after another, each as a rank of one world."""

from __future__ import annotations

import contextlib
import importlib.util
import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from hpcule.config.run import WorldConfig
from hpcule.world.group import World, connected
from hpcule.world.launcher import Place, free_port
from hpcule.world.signals import PARENT, die_with_parent

TIMEOUT_SECONDS = 60.0
GRACE_SECONDS = 3.0
"""How long the other ranks may still take when one has failed: they may wait for it in a collective."""


class Pool:
    """Gloo processes on one thread each; a context manager that leaves no process behind."""

    def __init__(self, size: int = 2) -> None:
        self.size = size
        self.processes: list[Any] = []
        self.pipes: list[Connection] = []

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def run(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """Call `function(world, *arguments)` on every rank; return what the ranks return, in order.

        The function stands at the top of its module; arguments and results are plain values. An exception of a rank
        is raised again, with the rank's traceback as a note.
        """
        if not self.processes:
            self.start()
        for pipe in self.pipes:
            pipe.send((function.__code__.co_filename, function.__module__, function.__name__, arguments))
        answers: dict[int, tuple[Any, BaseException | None, str]] = {}
        deadline = time.monotonic() + 2 * TIMEOUT_SECONDS
        while len(answers) < self.size:
            waiting = [pipe for rank, pipe in enumerate(self.pipes) if rank not in answers]
            ready = wait(waiting, max(0.0, deadline - time.monotonic()))
            if not ready:
                break
            for pipe in ready:
                rank = self.pipes.index(pipe)
                answers[rank] = self._receive(rank)
                if answers[rank][1] is not None:
                    deadline = min(deadline, time.monotonic() + GRACE_SECONDS)
        if len(answers) < self.size or any(not process.is_alive() for process in self.processes):
            self.stop()  # the next run starts afresh
        for rank, (_, error, trace) in sorted(answers.items()):
            if error is not None:
                error.add_note(f"on rank {rank}:\n{trace}")
                raise error
        assert len(answers) == self.size, f"only ranks {sorted(answers)} answered"
        return [answers[rank][0] for rank in range(self.size)]

    def start(self) -> None:
        """Start the ranks; they meet at a free port."""
        context = multiprocessing.get_context("spawn")
        port = free_port()
        for rank in range(self.size):
            ours, theirs = context.Pipe()
            place = Place("mpi", rank, self.size, rank, self.size, "127.0.0.1", port)
            process = context.Process(target=_serve, args=(place, theirs), daemon=True)
            process.start()
            theirs.close()
            self.processes.append(process)
            self.pipes.append(ours)

    def stop(self) -> None:
        """End the ranks, by force where they do not listen."""
        for pipe in self.pipes:
            pipe.close()
        for process in self.processes:
            process.kill()
            process.join()
        self.processes, self.pipes = [], []

    def _receive(self, rank: int) -> tuple[Any, BaseException | None, str]:
        try:
            return self.pipes[rank].recv()
        except EOFError:
            self.processes[rank].join(GRACE_SECONDS)
            return None, RuntimeError(f"rank {rank} died: exit code {self.processes[rank].exitcode}"), ""


def _serve(place: Place, pipe: Connection) -> None:
    os.environ[PARENT] = str(multiprocessing.parent_process().pid)
    die_with_parent()
    torch.set_num_threads(1)
    with connected(place, WorldConfig(device="cpu", threads=1, timeout_seconds=TIMEOUT_SECONDS)) as world:
        while True:
            try:
                path, module, name, arguments = pipe.recv()
            except EOFError:
                return
            pipe.send(_answer(world, path, module, name, arguments))


def _answer(world: World, path: str, module: str, name: str, arguments: tuple[Any, ...]) -> Any:
    try:
        return getattr(_load(path, module), name)(world, *arguments), None, ""
    except BaseException as error:
        trace = traceback.format_exc()
        with contextlib.suppress(Exception):
            multiprocessing.reduction.ForkingPickler.dumps(error)
            return None, error, trace
        return None, RuntimeError(f"{type(error).__name__}: {error}"), trace


def _load(path: str, name: str) -> Any:
    """The test module, by its file: test modules are on no search path."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]
