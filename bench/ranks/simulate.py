"""Crafts on W ranks that are threads of this process, and counts what each asks of the file system and sends.

    python bench/ranks/simulate.py --workers 1 8 64 -- craft em --data DATA --out STORE --preset smoke

STORE is removed before each run, unless --resume is among the arguments.
"""

from __future__ import annotations

import argparse
import os
import shutil
import time
from collections.abc import Mapping, Sequence
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


def simulate(
    arguments: Sequence[str], workers: int, folders: Sequence[Path], assumed: Mapping[int, int] | None = None
) -> list[Counts]:
    """What each rank of a craft has counted; for `assumed` see `Wires`."""
    parser = argparse.ArgumentParser()
    add_verbs(parser.add_subparsers(required=True), "craft")
    options = parser.parse_args(arguments)
    wires = Wires(assumed=assumed or {})
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


def options_of_run(description: str | None) -> tuple[list[int], list[str], list[Path]]:
    """The numbers of workers, the command, and its folders, from this program's arguments."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("arguments", nargs="+")
    options = parser.parse_args()
    found = {name: options.arguments[options.arguments.index(name) + 1] for name in ("--out", "--data")}
    return options.workers, options.arguments, [Path(found[name]).absolute() for name in found]


def main() -> None:
    """Run, and print."""
    sizes, arguments, folders = options_of_run(__doc__)
    for workers in sizes:
        if "--resume" not in arguments:
            shutil.rmtree(folders[0], ignore_errors=True)
        start = time.monotonic()
        counts = simulate(arguments, workers, folders)
        print(f"{workers} workers, {time.monotonic() - start:.1f} s, load {os.getloadavg()[0]:.1f}")
        show(counts)


if __name__ == "__main__":
    main()
