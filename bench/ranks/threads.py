"""Ranks that are threads of one process, and that send each other tensors through memory.

Everything else is the real code: the driver, the store, the schedule, the method, and the trees in which ranks send.
What a rank asks of the file system and sends is counted, so that a thousand ranks can be counted on one machine.
"""

from __future__ import annotations

import queue
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import pairwise
from typing import Any, TypeVar

import torch
from torch import Tensor

from hpcule.world.group import TREE_BYTES, World, tree
from hpcule.world.launcher import Place

T = TypeVar("T")
PATIENCE_SECONDS = 600


@dataclass
class Wires:
    """What is on its way between the ranks, and what each has sent."""

    boxes: defaultdict[tuple[int, int], queue.SimpleQueue[Tensor]] = field(
        default_factory=lambda: defaultdict(queue.SimpleQueue)
    )
    sent: defaultdict[int, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))


@dataclass(frozen=True)
class ThreadWorld(World):
    """A rank's view of ranks that are threads, or of a group of them."""

    wires: Wires = field(default_factory=Wires)
    members: Sequence[int] = ()
    """Numbers of the group's ranks among all."""

    def add(self, tensor: Tensor) -> Tensor:
        """See `World.add`; large sums are counted as gloo's ring would send them."""
        if self.size > 1:
            size = tensor.nbytes
            sent = self.wires.sent[self.members[self.rank]]
            before = sent.copy()
            self._tree(tensor, Tensor.add_)
            if size > TREE_BYTES:
                messages = 2 * (self.size - 1)
                sent["messages"] = before["messages"] + messages
                sent["bytes"] = before["bytes"] + round(messages / self.size * size)
            else:
                sent["bytes"] = before["bytes"] + (sent["messages"] - before["messages"]) * size
        return tensor

    def broadcast(self, tensor: Tensor, source: int = 0) -> Tensor:
        """See `World.broadcast`: down gloo's binomial tree."""
        if self.size > 1:
            turned = (self.rank - source) % self.size
            parent, children = tree(turned, self.size)
            if parent is not None:
                self._receive(tensor, (parent + source) % self.size)
            for child in reversed(children):
                self._send(tensor, (child + source) % self.size)
        return tensor

    def split(self, groups: int) -> tuple[int, World]:
        """See `World.split`."""
        groups = min(groups, self.size)
        ends = [number * self.size // groups for number in range(groups + 1)]
        number = next(number for number, end in enumerate(ends[1:]) if self.rank < end)
        own = list(pairwise(ends))[number]
        members = self.members[own[0] : own[1]]
        place, spent = self.place, self.spent
        return number, ThreadWorld(
            place,
            self.rank - own[0],
            len(members),
            self.device,
            self.timeout,
            spent=spent,
            wires=self.wires,
            members=members,
        )

    def _send(self, tensor: Tensor, peer: int) -> None:
        own = self.members[self.rank]
        self.wires.sent[own].update({"messages": 1, "bytes": tensor.nbytes})
        self.wires.boxes[own, self.members[peer]].put(tensor.clone())

    def _receive(self, tensor: Tensor, peer: int) -> None:
        tensor.copy_(self.wires.boxes[self.members[peer], self.members[self.rank]].get(timeout=PATIENCE_SECONDS))


def on_threads(
    size: int, work: Callable[[World], T], wires: Wires, begin: Callable[[int], object] = lambda rank: None
) -> list[T]:
    """What `work` returns on each of `size` ranks; raises the first error of any. `begin` is called in each thread."""
    results: dict[int, T] = {}
    errors: dict[int, BaseException] = {}
    failed = threading.Event()

    def run(rank: int) -> None:
        begin(rank)
        place = Place("threads", rank, size, rank, size)
        device, patience = torch.device("cpu"), timedelta(seconds=PATIENCE_SECONDS)
        world = ThreadWorld(place, rank, size, device, patience, wires=wires, members=range(size))
        try:
            results[rank] = work(world)
        except BaseException as error:
            errors[rank] = error
            failed.set()

    before = threading.stack_size(512 * 1024)
    threads: list[Any] = [threading.Thread(target=run, args=(rank,), daemon=True) for rank in range(size)]
    threading.stack_size(before)
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive() and not failed.is_set():
            thread.join(0.1)
    if errors:
        raise errors[min(errors)]
    return [results[rank] for rank in range(size)]
