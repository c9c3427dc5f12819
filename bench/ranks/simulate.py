"""Crafts on W ranks that are threads of this process, and counts what each asks of the file system and sends.

    python bench/ranks/simulate.py --workers 1 8 64 -- craft em --data DATA --out STORE --preset smoke

STORE is removed before each run, unless --resume is among the arguments. With --json, all counts of all ranks.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path

import torch
from counting import Counting
from threads import Wires, on_threads

from hpcule.cli.craft import _craft
from hpcule.cli.main import add_verbs
from hpcule.cli.options import configured
from hpcule.store.vault import Vault
from hpcule.world.group import World

Counts = dict[str, int]


@cache
def counting() -> Counting:
    """This process's counter."""
    return Counting([])


def simulate(arguments: Sequence[str], workers: int, folders: Sequence[Path]) -> list[Counts]:
    """What each rank of a craft has counted."""
    parser = argparse.ArgumentParser()
    add_verbs(parser.add_subparsers(required=True), "craft")
    options = parser.parse_args(arguments)
    wires = Wires()
    torch.set_num_threads(1)

    def work(world: World) -> None:
        _craft(options, partial(configured, options), Vault(options.out), world)

    counting().take(folders)
    on_threads(workers, work, wires, counting().belong)
    sent = [wires.sent[rank] for rank in range(workers)]
    return [
        {**counting().of(rank), "messages": own["messages"], "bytes": own["bytes"]} for rank, own in enumerate(sent)
    ]


def show(counts: Sequence[Counts]) -> None:
    """Print the counts of rank 0 and the largest of the other ranks."""
    for title, ranks in (("rank 0", counts[:1]), ("others, most", counts[1:])):
        if ranks:
            print(f"  {title}: " + ", ".join(f"{kind} {max(own[kind] for own in ranks)}" for kind in counts[0]))


def run_all(description: str | None, run: Callable[[list[str], int, list[Path]], list[Counts]]) -> None:
    """Run the command of this program's arguments with each number of workers, and print what is counted."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("arguments", nargs="+")
    options = parser.parse_args()
    arguments = options.arguments
    found = {name: arguments[arguments.index(name) + 1] for name in ("--out", "--data")}
    folders = [Path(name).absolute() for name in found.values()]
    counted = {}
    for workers in options.workers:
        if "--resume" not in arguments:
            shutil.rmtree(folders[0], ignore_errors=True)
        start = time.monotonic()
        with contextlib.redirect_stdout(sys.stderr):
            counted[workers] = run(arguments, workers, folders)
        if not options.json:
            print(f"{workers} workers, {time.monotonic() - start:.1f} s, load {os.getloadavg()[0]:.1f}")
            show(counted[workers])
    if options.json:
        print(json.dumps(counted))


def main() -> None:
    """Run, and print."""
    run_all(__doc__, simulate)


if __name__ == "__main__":
    main()
