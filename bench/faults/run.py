"""The fault matrix: crafts that are killed, stopped, cheated by their disk or clock, and then resumed.

Each run must end with the very bytes of an undisturbed one, or with a clear error and nothing that looks whole.
Prints a table of counts; exits with 1 if any run ended otherwise. Full and read-only file systems are mounted where
this program may (as root, in a mount namespace of its own), and left out elsewhere.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import itertools
import random
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import torch
import torch._dynamo
from cases import CASES, MORE_CASES
from faults import FAULTS, KILLS, MOUNTED
from mounts import may_mount
from ranks import adopt_orphans
from trial import REFUSED, SAME, WRONG, Bench, Trial, WrongError

# What a craft and verify import late, here once for all forks.
import hpcule.cli.submit
import hpcule.cli.workers
import hpcule.craft.run
import hpcule.store.verify  # noqa: F401


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200, help="of the whole matrix (default: 200)")
    parser.add_argument("--seed", type=int, default=0, help="decides where each fault happens (default: 0)")
    parser.add_argument("--kills", action="store_true", help="kills after the first event, of all kinds of crafts")
    parser.add_argument("--only", help="faults whose name holds this text")
    parser.add_argument("--keep", action="store_true", help="keep the folders of runs that ended wrong")
    options = parser.parse_args()
    torch.set_num_threads(1)
    adopt_orphans()
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="hpcule-faults-"))
    faults = KILLS if options.kills else FAULTS
    table = {name: entry for name, entry in faults.items() if not options.only or options.only in name}
    if not options.kills and (reason := may_mount(folder)):
        print(f"left out, since nothing can be mounted here ({reason}): {', '.join(MOUNTED)}")
        table = {name: entry for name, entry in table.items() if name not in MOUNTED}
    bench = Bench(folder, MORE_CASES if options.kills else CASES, options.kills)
    order = [name for name, (count, _) in table.items() for _ in range(count)]
    random.Random(options.seed).shuffle(order)
    counts: dict[str, collections.Counter[str]] = {name: collections.Counter() for name in table}
    by_case: dict[str, collections.Counter[str]] = {name: collections.Counter() for name in bench.cases}
    with contextlib.suppress(KeyboardInterrupt):  # the tables are of what was done until then
        for number, name in enumerate(itertools.islice(itertools.cycle(order), options.runs)):
            draw = random.Random(f"{options.seed} {number} {name}")
            trial = drawn_trial(bench, number, draw)
            try:
                verdict = table[name][1](trial)
            except WrongError as wrong:
                verdict = WRONG
                print(
                    f"run {number} ({name}, {trial.case}, {trial.workers} then {trial.again} workers): {wrong}",
                    flush=True,
                )
            counts[name][verdict] += 1
            by_case[trial.case][verdict] += 1
            if not (options.keep and verdict == WRONG):
                shutil.rmtree(trial.folder)
    report("fault", counts)
    report("craft", by_case)
    there = {name for ranks in bench._operations.values() for found in ranks for name in found}
    print(f"{len(bench.struck)} of {len(there)} operations struck: {', '.join(sorted(bench.struck))}")
    for message, times in bench.messages.most_common():
        print(f"{times} x {message}")
    print(f"{time.monotonic() - began:.0f} s")
    if not options.keep:
        shutil.rmtree(folder)
    return 1 if any(count[WRONG] for count in counts.values()) else 0


def drawn_trial(bench: Bench, number: int, draw: random.Random) -> Trial:
    """What is crafted by how many workers, then by how many others."""
    if not bench.in_the_middle:
        return Trial(
            bench, number, draw.choice(list(bench.cases)), draw.choice((1, 2, 2)), draw.choice((1, 2, 3)), draw
        )
    workers, again = draw.sample((1, 2, 3), 2)
    return Trial(bench, number, list(bench.cases)[number % len(bench.cases)], workers, again, draw)


def report(what: str, counts: Mapping[str, collections.Counter[str]]) -> None:
    """Print a table."""
    verdicts = (SAME, REFUSED, WRONG)
    print(f"| {what} | runs | {' | '.join(verdicts)} |\n| --- | --- | --- | --- | --- |")
    total: collections.Counter[str] = sum(counts.values(), collections.Counter())
    for name, count in [*counts.items(), ("all", total)]:
        if count:
            print(f"| {name} | {count.total()} | {' | '.join(str(count[verdict]) for verdict in verdicts)} |")


if __name__ == "__main__":
    raise SystemExit(main())
