"""Initial weights that depend on a seed alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def seeded_weights(seed: int) -> Iterator[None]:
    """Draw everything inside from `seed`, on the CPU, and leave the global generators as they were.

    The CPU generator is seeded by itself: `torch.manual_seed` would also reset those of the accelerators.
    """
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)
        yield
