"""Counts what a process sends to other ranks, from the calls to torch.distributed and gloo's algorithms.

gloo sums and compares in a ring, 2 (W - 1) messages of a W-th; gathers in a ring of W - 1 messages; and broadcasts down
a binomial tree.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch.distributed as dist
from torch import Tensor


def count_messages() -> Counter[str]:
    """Begin to count; returns what is counted, "messages" and "bytes" that this process sends."""
    sent: Counter[str] = Counter()

    def counted(name: str, cost: Callable[[Tensor, int, int, int], tuple[int, float]]) -> None:
        function = getattr(dist, name)

        def call(*arguments: Any, **named: Any) -> Any:
            group, tensor = named.get("group"), arguments[-1] if name == "all_gather" else arguments[0]
            rank, size = dist.get_rank(group), dist.get_world_size(group)
            root = named.get("group_src", 0)
            messages, share = cost(tensor, rank, size, root)
            sent["messages"] += messages
            sent["bytes"] += round(share * tensor.nbytes)
            return function(*arguments, **named)

        setattr(dist, name, call)

    counted("send", lambda tensor, rank, size, root: (1, 1.0))
    counted("isend", lambda tensor, rank, size, root: (1, 1.0))
    counted("all_reduce", lambda tensor, rank, size, root: (2 * (size - 1), 2 * (size - 1) / size))
    counted("all_gather", lambda tensor, rank, size, root: (size - 1, size - 1.0))
    counted("broadcast", lambda tensor, rank, size, root: (children((rank - root) % size, size),) * 2)
    return sent


def children(rank: int, size: int) -> int:
    """How many ranks this one sends to in a binomial tree from rank 0."""
    step, found = 1, 0
    while step < size and not rank & step:
        found += rank + step < size
        step *= 2
    return found
