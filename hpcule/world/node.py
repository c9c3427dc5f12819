"""Sums over ranks of one machine: through shared memory, awake, where a socket would put the ranks to sleep.

A rank that sleeps in a socket is woken by the kernel, on a virtual machine through the hypervisor. Measured with two
processes on two virtual cores that compute 0.35 ms between two sums of 120 kB: 1.0 to 1.5 ms a sum through gloo, 0.1 ms
through shared memory; PIL's surrogate on 50,000 CIFAR images took 6.9 s through gloo and 4.4 s through shared memory.
"""

from __future__ import annotations

import mmap
import os
import platform
import select
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

SLOT_BYTES = 2**18
LINE_BYTES = 64
"""Each rank's counter has a cache line of its own."""
AWAKE_SECONDS = 0.02
"""Seconds for which a waiting rank only yields its core; afterwards it naps, and checks that the others still live."""
NAP_SECONDS = 0.0005


class NodeSum:
    """Memory that all ranks map: a counter and two slots a rank.

    A rank writes its values into its slot, then the number of the sum into its counter, and waits until all counters
    have come so far. Two slots taken in turn suffice: who has seen all counters at sum n knows that everybody has left
    sum n - 1.
    """

    def __init__(self, memory: mmap.mmap, rank: int, peers: list[int], timeout: timedelta) -> None:
        self._rank = rank
        self._seconds = timeout.total_seconds()
        self._peers = select.poll()
        for peer in peers:
            self._peers.register(peer, select.POLLIN)
        size = len(peers) + 1
        raw = torch.frombuffer(memory, dtype=torch.uint8)
        self._counters = raw[: size * LINE_BYTES].view(torch.int64).numpy()[:: LINE_BYTES // 8]
        self._slots = raw[size * LINE_BYTES :].view(2, size, SLOT_BYTES)
        self._number = 0

    @staticmethod
    def memory_bytes(size: int) -> int:
        """What `size` ranks need."""
        return size * (LINE_BYTES + 2 * SLOT_BYTES)

    def add(self, tensor: Tensor) -> None:
        """Sum over the ranks in place, always in the order of ranks.

        Raises:
            RuntimeError: another rank has ended, or none came within the time-out.
        """
        flat = tensor.reshape(-1)
        for part in torch.split(flat, SLOT_BYTES // tensor.element_size()):
            self._add(part)
        if flat.data_ptr() != tensor.data_ptr():
            tensor.copy_(flat.view_as(tensor))

    def _add(self, part: Tensor) -> None:
        self._number += 1
        slots = self._slots[self._number % 2, :, : part.nbytes].view(part.dtype)
        slots[self._rank].copy_(part)
        self._counters[self._rank] = self._number
        self._wait()
        part.copy_(slots[0])
        for slot in slots[1:]:
            part.add_(slot)

    def _wait(self) -> None:
        start = time.monotonic()
        while self._counters.min() < self._number:
            os.sched_yield()
            waited = time.monotonic() - start
            if waited > AWAKE_SECONDS:
                self._check_peers(waited)
                time.sleep(NAP_SECONDS)

    def _check_peers(self, waited: float) -> None:
        if self._peers.poll(0):
            if self._counters.min() >= self._number:  # it came, and left after that
                return
            raise RuntimeError("its process has ended")
        if waited > self._seconds:
            raise RuntimeError(f"timed out after {self._seconds:g} seconds")


def share_memory(rank: int, size: int, timeout: timedelta, gather: Callable[[Any], list[Any]]) -> NodeSum | None:
    """Set up shared memory among all ranks, together; None where they are not on one machine or it cannot be had.

    The memory has no name (memfd): nothing is left over whatever ends the ranks.
    """
    descriptor = _create(NodeSum.memory_bytes(size)) if rank == 0 else -1
    offers = gather((_machine(), os.getpid(), descriptor))
    memory, peers = None, []
    if len({machine for machine, _, _ in offers}) == 1 and offers[0][0]:
        _, owner, number = offers[0]
        try:
            own = os.open(f"/proc/{owner}/fd/{number}", os.O_RDWR)
            memory = mmap.mmap(own, NodeSum.memory_bytes(size))
            os.close(own)
            peers = [os.pidfd_open(process) for _, process, _ in offers if process != os.getpid()]
        except OSError:
            memory = None
    together = all(gather(memory is not None))
    if descriptor >= 0:
        os.close(descriptor)
    return NodeSum(memory, rank, peers, timeout) if together and memory is not None else None


def _machine() -> str:
    """What ranks have in common that can share memory and see each other's processes; empty where the system has no
    such memory, or a processor that may show its stores to others in another order."""
    if not hasattr(os, "memfd_create") or not hasattr(os, "pidfd_open") or platform.machine() != "x86_64":
        return ""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return ""


def _create(size: int) -> int:
    if not _machine():
        return -1
    try:
        descriptor = os.memfd_create("hpcule")
        os.posix_fallocate(descriptor, 0, size)
    except OSError:
        return -1
    return descriptor
