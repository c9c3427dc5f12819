"""The ranks of a run and what they do together."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import pairwise
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from hpcule.config.errors import HpculeError, PeerLostError, PeerTimeoutError, UsageError
from hpcule.config.run import WorldConfig
from hpcule.world.launcher import Place, environment_threads
from hpcule.world.meeting import meet, patience, prove
from hpcule.world.node import NodeSum, share_memory
from hpcule.world.plain_values import dumps, loads
from hpcule.world.preconditions import refuse_shared_devices

T = TypeVar("T")

TREE_BYTES = 2**20
"""Up to this size gloo's all-reduce, a ring in many small parts, is mostly waiting. Measured with two processes on two
cores, 120 kB: 0.4 to 0.7 ms by the ring, 0.2 to 0.3 ms by a tree; with three processes 2.3 to 2.9 against 0.5 ms."""
CUBLAS_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
"""Variable that cuBLAS reads, see `connected`."""
TIMED_OUT = re.compile(r"tim(?:ed |e)-?out", re.IGNORECASE)
"""How torch, gloo and NCCL say that nobody came in time."""


@dataclass
class Spent:
    """Counted by every collective of a world and of the groups that it was split into."""

    seconds: float = 0.0
    """Seconds spent inside collectives: sending, and waiting for other ranks."""
    calls: int = 0
    bytes: int = 0
    """Size of the tensors that were summed, compared or copied; gathered objects are not counted."""

    def note(self, seconds: float, size: int) -> None:
        """Add one collective on a tensor of `size` bytes."""
        self.seconds += seconds
        self.calls += 1
        self.bytes += size

    def copy(self) -> Spent:
        """Return a copy of the present figures."""
        return Spent(self.seconds, self.calls, self.bytes)

    def add(self, later: Spent, earlier: Spent) -> None:
        """Add what was spent between two copies."""
        self.seconds += later.seconds - earlier.seconds
        self.calls += later.calls - earlier.calls
        self.bytes += later.bytes - earlier.bytes


@dataclass(frozen=True)
class World:
    """All ranks, or a group of them. A single process is a world of one and runs the same code.

    Every method but the properties and `alone` is a collective: all ranks of the world must call it in the same order.
    """

    place: Place
    rank: int
    size: int
    device: torch.device
    timeout: timedelta
    group: dist.ProcessGroup | None = None
    memory: NodeSum | None = None
    """Where all ranks are on one machine and compute on its processors."""
    spent: Spent = field(default_factory=Spent)
    checkpoint_seconds: float = WorldConfig().checkpoint_seconds
    """Least time between two checkpoints of what the ranks do."""

    @property
    def leads(self) -> bool:
        """Whether this is rank 0, the one that prints and writes what is shared."""
        return self.rank == 0

    def add(self, tensor: Tensor) -> Tensor:
        """Sum over the ranks, in place."""
        if self.size > 1:
            with self._peers("a sum", tensor.nbytes):
                if self.memory is not None:
                    self.memory.add(tensor)
                elif tensor.device.type == "cpu" and tensor.numel() * tensor.element_size() <= TREE_BYTES:
                    self._tree(tensor, Tensor.add_)
                else:
                    self._ring(tensor)
        return tensor

    def _tree(self, tensor: Tensor, combine: Callable[[Tensor, Tensor], object]) -> None:
        """Combine the ranks' tensors in place, up a binomial tree to rank 0, and send the result back down."""
        parent, children = tree(self.rank, self.size)
        received = torch.empty_like(tensor)
        for child in children:
            self._receive(received, child)
            combine(tensor, received)
        if parent is not None:
            self._send(tensor, parent)
            self._receive(tensor, parent)
        for child in reversed(children):
            self._send(tensor, child)

    def maximum(self, values: Sequence[float]) -> list[float]:
        """The largest of each value over the ranks."""
        if self.size == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64)
        with self._peers("a maximum", tensor.nbytes):
            self._tree(tensor, lambda own, other: torch.maximum(own, other, out=own))
        return [float(value) for value in tensor.tolist()]

    def collect(self, value: T) -> list[T] | None:
        """Every rank's small value, in rank order, on rank 0; None elsewhere. See `plain_values`."""
        if self.size == 1:
            return [value]
        parent, children = tree(self.rank, self.size)
        values = [value]
        with self._peers("a gather"):
            for child in children:  # the ranks below a child follow it without a gap
                values += loads(self._receive_bytes(child))
            if parent is not None:
                self._send_bytes(dumps(values), parent)
        return values if self.leads else None

    def share(self, value: T) -> T:
        """Rank 0's value on every rank, whatever the others give: plain values and arrays, see `plain_values`."""
        if self.size == 1:
            return value
        parent, children = tree(self.rank, self.size)
        with self._peers("a broadcast"):
            data = dumps(value) if parent is None else self._receive_bytes(parent)
            for child in reversed(children):
                self._send_bytes(data, child)
            shared: T = value if parent is None else loads(data)
        return shared

    def lead(self, work: Callable[[], T]) -> T:
        """What `work` returns on rank 0, which does it alone, on every rank; raises what it raises there.

        Raises:
            PeerLostError: on all other ranks, where rank 0 raises an error.
        """
        answer: tuple[T | None, str] = None, ""
        error: Exception | None = None
        if self.leads:
            try:
                answer = work(), ""
            except Exception as found:
                error, answer = found, (None, str(found) or type(found).__name__)
        value, reason = self.share(answer)
        if error is not None:
            raise error
        if reason:
            raise PeerLostError(f"rank 0 failed: {reason}")
        return cast("T", value)

    def gather(self, value: T) -> list[T]:
        """Every rank's small value, in rank order, on every rank: plain values and arrays, see `plain_values`."""
        if self.size == 1:
            return [value]
        return cast("list[T]", self.share(self.collect(value)))

    def broadcast(self, tensor: Tensor, source: int = 0) -> Tensor:
        """Copy the tensor of rank `source` into every rank's, in place."""
        if self.size > 1:
            with self._peers("a broadcast", tensor.nbytes):
                dist.broadcast(tensor, group_src=source, group=self.group)
        return tensor

    def barrier(self) -> None:
        """Wait for all ranks."""
        self.maximum([0.0])

    def alone(self) -> World:
        """This rank as a world of its own, for work that it does by itself; no collective."""
        return replace(self, rank=0, size=1, group=None, memory=None)

    def split(self, groups: int) -> tuple[int, World]:
        """Cut the ranks into groups of neighbours of nearly equal size: our group's number, and it as a world."""
        groups = min(groups, self.size)
        if groups == 1:
            return 0, self
        # Neighbours, most of whom share a node.
        ends = [number * self.size // groups for number in range(groups + 1)]
        return self._grouped([range(first, end) for first, end in pairwise(ends)])

    def in_groups_of(self, size: int) -> tuple[int, World]:
        """Cut the ranks into groups of `size` neighbours, a divisor of ours: our group's number, and it as a world.

        A group sums as a run of that size would, through memory where its ranks share a machine.
        """
        if size == self.size:
            return 0, self
        if size == 1:
            return self.rank, self.alone()
        number, group = self._grouped([range(first, first + size) for first in range(0, self.size, size)])
        if self.device.type == "cpu":
            memory = share_memory(group.rank, group.size, group.timeout, group.gather)
            group = replace(group, memory=memory)
        return number, group

    def _grouped(self, groups: Sequence[Sequence[int]]) -> tuple[int, World]:
        """The number of the group of ranks that is ours, and it as a world; a collective."""
        mine, process_group = 0, None
        for number, ranks in enumerate(groups):
            created = dist.new_group(list(ranks), timeout=self.timeout)  # every rank must create every group
            if self.rank not in ranks:
                continue
            mine = number
            if len(ranks) > 1:
                process_group = created
                with self._peers("the meeting of a group"):
                    prove(self.place, created)
        rank, size = groups[mine].index(self.rank), len(groups[mine])
        return mine, replace(self, rank=rank, size=size, group=process_group, memory=None)

    def _send(self, tensor: Tensor, peer: int) -> None:
        dist.send(tensor, group=self.group, group_dst=peer)

    def _receive(self, tensor: Tensor, peer: int) -> None:
        dist.recv(tensor, group=self.group, group_src=peer)

    def _ring(self, tensor: Tensor) -> None:
        dist.all_reduce(tensor, group=self.group)

    def _send_bytes(self, data: bytes, peer: int) -> None:
        self._send(torch.tensor([len(data)]), peer)
        self._send(torch.frombuffer(bytearray(data), dtype=torch.uint8), peer)

    def _receive_bytes(self, peer: int) -> bytes:
        size = torch.zeros(1, dtype=torch.int64)
        self._receive(size, peer)
        data = torch.empty(int(size), dtype=torch.uint8)
        self._receive(data, peer)
        return data.numpy().tobytes()

    @contextmanager
    def _peers(self, what: str, size: int = 0) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        except RuntimeError as error:
            # gloo begins with the place in its own source.
            reason = re.sub(r"^\[\S+\] ", "", str(error).splitlines()[0])[:160]
            if TIMED_OUT.search(reason):
                raise PeerTimeoutError(
                    f"timed out: another rank did not answer during {what} within {self.timeout.total_seconds():g} "
                    f"seconds (world.timeout_seconds); it hangs, or its step takes longer ({reason})"
                ) from None
            raise PeerLostError(f"lost another rank during {what} ({reason})") from None
        self.spent.note(time.perf_counter() - start, size)


def tree(rank: int, size: int) -> tuple[int | None, list[int]]:
    """A rank's parent in a binomial tree from rank 0, and its children, the smallest subtree first.

    The ranks below a rank follow it without a gap.
    """
    step, children = 1, []
    while step < size and not rank & step:
        if rank + step < size:
            children.append(rank + step)
        step *= 2
    return (rank - step if rank else None), children


@contextmanager
def connected(place: Place, config: WorldConfig, *, deterministic: bool = False) -> Iterator[World]:
    """Join the other ranks, choose device and threads, and leave at the end.

    Raises:
        UsageError: the device is not there, more local workers than GPUs, or two ranks on one GPU; see also `meet`.
        PeerLostError: the ranks do not find each other within the time-out, or the port is taken.
        HpculeError: a deterministic run needs an operator that has no reproducible implementation on the device.
    """
    if deterministic:
        # Read when a context of CUDA first multiplies matrices; without it, sums of cuBLAS depend on its streams:
        # https://docs.nvidia.com/cuda/cublas/#results-reproducibility
        os.environ.setdefault(CUBLAS_WORKSPACE, ":4096:8")
    device = _device(place, config.device)
    _set_threads(place, config.threads, deterministic)
    timeout = timedelta(seconds=config.timeout_seconds)
    world = World(place, place.rank, place.size, device, timeout, checkpoint_seconds=config.checkpoint_seconds)
    if place.size > 1:
        with replace(world, timeout=patience(timeout))._peers(f"the first meeting at {place.meeting}"):
            meet(place, "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout)
        if device.type == "cpu":
            world = replace(world, memory=share_memory(place.rank, place.size, timeout, world.gather))
        else:
            # Before the first collective on the devices, which NCCL does not survive where two are the same.
            own = (place.host, str(torch.cuda.get_device_properties(device).uuid))
            refuse_shared_devices(replace(world, device=torch.device("cpu")).gather(own))
    with _irreproducible_named(device):
        yield world
    # Left out after an error: tearing down waits for peers that are gone.
    if place.size > 1:
        world.barrier()
        dist.destroy_process_group()


def _device(place: Place, wanted: str) -> torch.device:
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted == "cpu" or (wanted == "auto" and count == 0):
        return torch.device("cpu")
    if count == 0:
        raise UsageError("world.device=cuda, but torch sees no CUDA device: install a CUDA build of torch, or use cpu")
    if 1 < count < place.local_size:
        raise UsageError(f"{place.local_size} workers on {place.host}, which has {count} GPUs: start one worker a GPU")
    # A launcher that binds GPUs to tasks shows each rank a single device, number 0.
    device = torch.device("cuda", place.local_rank if count > 1 else 0)
    torch.cuda.set_device(device)
    return device


def _set_threads(place: Place, threads: int | None, deterministic: bool) -> None:
    if threads is None:
        share = max(1, len(os.sched_getaffinity(0)) // place.local_size)
        threads = 1 if deterministic else environment_threads() or share
    torch.set_num_threads(threads)
    torch.backends.cuda.matmul.allow_tf32 = not deterministic
    torch.backends.cudnn.allow_tf32 = not deterministic
    torch.backends.cudnn.benchmark = not deterministic
    # `use_deterministic_algorithms` does the same and imports torch's compiler, which takes seconds.
    torch.set_deterministic_debug_mode("error" if deterministic else "default")


@contextmanager
def _irreproducible_named(device: torch.device) -> Iterator[None]:
    """Say in one line which operator torch refuses in a deterministic run."""
    try:
        yield
    except RuntimeError as error:
        if "does not have a deterministic implementation" not in str(error):
            raise
        raise HpculeError(
            f"deterministic=true: {str(error).split()[0]} is not reproducible on {device.type}: leave it out, or set "
            "world.device=cpu"
        ) from None
