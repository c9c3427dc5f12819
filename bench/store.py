"""A store's reading and writing beside what the disk and a NumPy memory map do with the same bytes, as ratios.

Both sides of a ratio are measured in turns, in one run; above 1 a store is the faster one.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from hpcule.store.behind import WriteBehind
from hpcule.store.manifest import Manifest, SourceFacts, plan_shards
from hpcule.store.read import StoreReader
from hpcule.store.vault import Vault
from hpcule.store.write import begin, finish

Array = npt.NDArray[Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=40_000, help="of int8 (default: 40000)")
    parser.add_argument("--size", type=int, default=64, help="pixels of their sides (default: 64)")
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--batch", type=int, default=256, help="samples read at random (default: 256)")
    parser.add_argument("--batches", type=int, default=100, help="a measurement of random reading (default: 100)")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="on the file system to measure (default: the temporary folder)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        measure(Path(folder), options)


def measure(folder: Path, options: argparse.Namespace) -> None:
    """Write a store and a plain file in turns, then read both in turns."""
    shape = (3, options.size, options.size)
    delta = np.random.default_rng(0).integers(-8, 9, (options.samples // options.shards, *shape), dtype=np.int8)
    plan = manifest(options, shape)
    turns = count()

    def write_store() -> None:
        # Anew in every turn: to replace a file takes the file system longer than to make one.
        store = folder / f"store-{next(turns)}"
        begin(Vault(store), plan)
        with WriteBehind(Vault(store), plan) as writer:
            for shard in range(options.shards):
                writer.shard(shard, None, delta=delta)

    def write_plain() -> None:
        turn = next(turns)
        for shard in range(options.shards):
            with (folder / f"plain-{turn}-{shard}").open("wb") as file:
                file.write(delta.data)
                file.flush()
                os.fsync(file.fileno())

    total = options.shards * delta.nbytes
    compare("write", "write + fsync", write_store, write_plain, total, options.runs)
    store_folder, plain = folder / "store-0", folder / "plain"
    finish(Vault(store_folder), plan)
    np.concatenate([delta] * options.shards).tofile(plain)
    mapped = np.memmap(plain, np.int8, "r", 0, (options.shards * len(delta), *shape))
    draws = np.random.default_rng(1)

    def read_batches(take: Callable[[Array], Array]) -> None:
        for _ in range(options.batches):
            take(draws.integers(0, len(mapped), options.batch))

    def read_shards(take: Callable[[int], Array]) -> None:
        for shard in range(options.shards):
            take(shard)

    def part(shard: int) -> Array:
        return np.array(mapped[shard * len(delta) : (shard + 1) * len(delta)])

    some = options.batches * options.batch * delta[0].nbytes
    map_take = np.asarray(mapped).__getitem__
    with StoreReader(Vault(store_folder)) as store:
        compare(
            f"batches of {options.batch}",
            "memory map",
            lambda: read_batches(store.delta),
            lambda: read_batches(map_take),
            some,
            options.runs,
        )
        compare(
            "whole shards",
            "memory map",
            lambda: read_shards(lambda shard: store.delta(ids(store, shard))),
            lambda: read_shards(part),
            total,
            options.runs,
        )


def ids(store: StoreReader, shard: int) -> Array:
    """The ids of a shard."""
    entry = store.manifest.shards[shard]
    return np.arange(entry.first, entry.first + entry.count)


def compare(title: str, other: str, ours: Callable[[], None], theirs: Callable[[], None], size: int, runs: int) -> None:
    """Run both in turns, after one turn to warm up, and print the medians and the median of the turns' ratios."""
    turns = [(seconds(ours), seconds(theirs)) for _ in range(runs + 1)][1:]
    own, their = (size / median(turn) / 2**20 for turn in zip(*turns, strict=True))
    ratios = sorted(their_time / our_time for our_time, their_time in turns)
    print(
        f"{title}: store {own:,.0f} MiB/s, {other} {their:,.0f} MiB/s; "
        f"ratio min {ratios[0]:.2f}, median {median(ratios):.2f}, max {ratios[-1]:.2f}"
    )


def seconds(work: Callable[[], None]) -> float:
    """Of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def manifest(options: argparse.Namespace, shape: tuple[int, int, int]) -> Manifest:
    """Of a store of one delta a sample."""
    count = options.samples // options.shards
    return Manifest(
        hpcule="bench",
        method="bench",
        config={},
        seed=0,
        source=SourceFacts("bench", "npz", "all", "0" * 64),
        epsilon=8.0,
        norm="linf",
        unit="sample",
        groups=0,
        n=count * options.shards,
        sample_shape=shape,
        levels=255,
        applied_at="native",
        working_size=None,
        reduced=False,
        compression=None,
        shards=plan_shards(count * options.shards, [(shard * count, count) for shard in range(options.shards)]),
        shared=None,
        labelled=False,
        complete=False,
    )


if __name__ == "__main__":
    main()
