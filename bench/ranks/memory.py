"""Resident memory of one rank of many, on samples that are made up when they are read.

    python bench/ranks/memory.py --samples 100000000 --ranks 4096

The rank takes some steps of EM's model phase, and of UC's generators, with the real method, schedule and reader; what
other ranks would send is left out. Printed is what the process holds beyond what it holds with the network alone.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from threads import ThreadWorld
from torch import Tensor

from hpcule.craft.method import Method, Problem, Step
from hpcule.craft.table import configure, find
from hpcule.data.partition import partition
from hpcule.data.reader import Reader
from hpcule.data.source import Ids, Samples, Source
from hpcule.store.checkpoint import PartState
from hpcule.world.keyed import bits
from hpcule.world.launcher import Place

T = TypeVar("T")
MIB = 2**20


class MadeUp(Source):
    """Random samples of 32 x 32 x 3 in ten classes, the same each time that they are read."""

    name, kind, split, shape, levels = "made-up", "npz", "all", (3, 32, 32), 255

    def __init__(self, samples: int, *, labelled: bool) -> None:
        self._samples = samples
        self.labels = np.resize(np.arange(10, dtype=np.int8), samples) if labelled else None
        self.class_names = tuple("0123456789") if labelled else None

    def __len__(self) -> int:
        return self._samples

    def read(self, ids: Ids) -> Samples:
        """See `Source.read`."""
        return bits(0, ids, 384).view(np.uint8).reshape(len(ids), *self.shape)


@dataclass(frozen=True)
class LoneWorld(ThreadWorld):
    """One rank, for which the others send nothing."""

    def _tree(self, tensor: Tensor, combine: object) -> None:
        return

    def share(self, value: T) -> T:
        """See `World.share`; the value is this rank's own."""
        return value

    def broadcast(self, tensor: Tensor, source: int = 0) -> Tensor:
        """See `World.broadcast`; nothing is copied."""
        return tensor

    def split(self, groups: int) -> tuple[int, LoneWorld]:
        """See `World.split`."""
        number, group = super().split(groups)
        return number, LoneWorld(
            self.place, group.rank, group.size, self.device, self.timeout, members=range(group.size)
        )


@dataclass(frozen=True)
class Clustered:
    """A checkpoint of UC after its clustering, with every sample in the first cluster."""

    problem: Problem
    clusters: int
    width: int

    @property
    def names(self) -> tuple[str, ...]:
        """See `Saved`; no generator was begun."""
        return ()

    def load(self, name: str) -> PartState:
        """See `Saved`."""
        if name == "shared":
            sizes = [len(self.problem.source), *[0] * (self.clusters - 1)]
            centers = torch.arange(self.clusters * self.width).reshape(self.clusters, -1) / 1e4
            return {"centers": centers, "sizes": sizes, "progress": dict.fromkeys(range(self.clusters), 0)}
        _, count = self.problem.partition.range(int(name.removeprefix("shard-")))
        return {"clusters": torch.zeros(count, dtype=torch.int64)}


def resident() -> float:
    """Resident memory of this process in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / MIB


def measure(name: str, samples: int, ranks: int, steps: int, settings: Mapping[str, object]) -> None:
    """Print what a method holds on a rank in the middle."""
    overrides = [f"method.{key}={value}" for key, value in settings.items()]
    config = configure(name, "made-up", preset="small", file={}, overrides=["seed=0", *overrides])
    source = MadeUp(samples, labelled=name == "em")
    labels = 0 if source.labels is None else source.labels.nbytes / MIB
    cut = partition(samples, 3072, ranks, ranks)
    rank = ranks // 2
    world = LoneWorld(
        Place("threads", rank, ranks), rank, ranks, torch.device("cpu"), timedelta(seconds=60), members=range(ranks)
    )
    problem = Problem(source, cut, Reader(source, cut, 1024 * MIB), world, seed=0, exact=True, autocast=False)
    before = resident()
    method: Method[Any] = find(name)(config.method, problem)
    built = resident()
    if name == "uc":
        method.restore(Clustered(problem, 10, 1280))
    for event in itertools.islice(method.run(), steps):
        assert isinstance(event, Step), event
    after = resident()
    own = sum(cut.range(shard)[1] for shard in problem.owned)
    print(
        f"{name}: rank {rank} of {ranks}, {samples:,} samples, {own:,} of them its own, {cut.count:,} shards: labels "
        f"{labels:.0f} MiB, built {built - before:.0f} MiB, after {steps} steps {after - before:.0f} MiB more"
    )


def main() -> None:
    """Measure EM and UC."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=10**8)
    parser.add_argument("--ranks", type=int, default=4096)
    parser.add_argument("--methods", nargs="+", default=["em", "uc"], choices=("em", "uc"))
    options = parser.parse_args()
    settings: dict[str, dict[str, object]] = {"em": {}, "uc": {"encoder_size": 32, "epochs": 1, "steps": 4}}
    torch.set_num_threads(1)
    for name in options.methods:
        measure(name, options.samples, options.ranks, 3, settings[name])


if __name__ == "__main__":
    main()
