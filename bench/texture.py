"""Processor time of class texture by sample: of a craft, start-up aside, and of writing such a store alone."""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import shutil
import tempfile
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch

from hpcule.craft import run
from hpcule.craft.config import CraftConfig
from hpcule.craft.table import configure
from hpcule.data.source import Source
from hpcule.store.behind import WriteBehind
from hpcule.store.manifest import read_manifest
from hpcule.store.read import load_shard, load_spectra
from hpcule.store.vault import Vault
from hpcule.store.write import begin
from hpcule.world.group import World
from hpcule.world.launcher import Place
from hpcule.world.signals import StopFlag


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=20_000, help="made here (default: 20000)")
    parser.add_argument("--side", type=int, default=64, help="pixels (default: 64)")
    parser.add_argument("--folder", type=Path, help="for data and stores (default: the temporary folder)")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="NAME=VALUE")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="hpcule-bench-", dir=options.folder) as folder:
        overrides = ["seed=1", *options.overrides]
        data = str(Path(folder, "images.npz"))
        # Elsewhere, for the memory of this process is measured.
        made = multiprocessing.Process(target=make_data, args=(data, options.samples, options.side))
        made.start()
        made.join()
        config = configure("texture", data, preset=None, file={}, overrides=overrides)
        source = config.opening.source(data)
        rows = []
        for number in range(options.runs):
            store = Path(folder, f"store-{number}")
            rows.append((crafted(config, source, store), written(store, Path(folder, f"again-{number}"))))
            shutil.rmtree(store)
            shutil.rmtree(Path(folder, f"again-{number}"))
    whole, writing = (1e6 * min(column) / options.samples for column in zip(*rows, strict=True))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"texture: {options.samples} samples of {options.side} x {options.side} x 3, {options.runs} run(s), least "
        f"processor time in microseconds a sample: craft {whole:.0f}, writing alone {writing:.0f}; "
        f"craft / writing {whole / writing:.2f}; peak memory {peak:.0f} MiB"
    )


def make_data(path: str, samples: int, side: int) -> None:
    """Ten classes of noise: the method's time does not depend on what the samples show."""
    images = np.random.default_rng(0).integers(0, 256, (samples, side, side, 3), dtype=np.uint8)
    np.savez(path, train_images=images, train_labels=np.arange(samples) % 10)


def crafted(config: CraftConfig, source: Source, store: Path) -> float:
    """Processor seconds of a craft."""
    world = World(Place("single"), 0, 1, torch.device("cpu"), timedelta(seconds=60))
    start = time.process_time()
    run.craft(config, source, Vault(store), world, StopFlag(), resume=False, report=lambda step: None)
    return time.process_time() - start


def written(store: Path, again: Path) -> float:
    """Processor seconds of writing the shards of a store once more, with deltas that are there."""
    vault, other = Vault(store), Vault(again)
    done = read_manifest(vault)
    shards = tuple(replace(entry, bytes=None, sha256=None) for entry in done.shards)
    planned = replace(done, complete=False, index_sha256=None, shards=shards)
    begin(other, planned)
    seconds = 0.0
    with WriteBehind(other, planned) as writer:
        for index, entry in enumerate(done.shards):
            shard, spectrum = load_shard(vault, done, entry), load_spectra(vault, done, entry)
            start = time.process_time()
            writer.shard(index, shard.labels, delta=shard.delta, spectrum=spectrum)
            writer.wait()
            seconds += time.process_time() - start
    return seconds


if __name__ == "__main__":
    main()
