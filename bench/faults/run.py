"""The fault matrix: crafts that are killed, stopped, cheated by their disk or clock, and then resumed.

Each run must end with the very bytes of an undisturbed one, or with a clear error and nothing that looks whole.
Prints a table of counts; exits with 1 if any run ended otherwise. Full and read-only file systems are mounted where
this program may (as root, in a mount namespace of its own), and left out elsewhere.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import ctypes
import itertools
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch._dynamo
from cases import CASES, MORE_CASES, Case, Samples, contents
from inject import KINDS, LATER, RENAMES, WRITES, Fault
from ranks import Ended, Run, adopt_orphans

# What a craft and verify import late, here once for all forks.
import hpcule.cli.submit
import hpcule.cli.workers
import hpcule.craft.run
import hpcule.store.verify  # noqa: F401
from hpcule.config.errors import HpculeError
from hpcule.store.read import StoreReader
from hpcule.store.seal import Key
from hpcule.store.vault import Vault

CLEAR = (0, 1, 69, 75, -signal.SIGKILL)
"""Exit codes of a disturbed run: done, failed, lost a peer, stopped and saved, killed."""
CLONE_NEWNS = 0x00020000
DISK = "16m"


@dataclass
class Trial:
    """One run of the matrix."""

    bench: Bench
    number: int
    case: str
    workers: int
    again: int
    draw: random.Random

    def __post_init__(self) -> None:
        """Prepare an empty place."""
        self.folder = self.bench.folder / f"{self.number:04d}"
        self.folder.mkdir()
        self.store = self.folder / "disk" / "store"
        self.store.parent.mkdir()

    @property
    def key(self) -> Key | None:
        """The key of the store."""
        return self.bench.samples.key(self.bench.cases[self.case])

    def fault(self, action: str, kinds: tuple[str, ...] = KINDS) -> Fault:
        """That action at an operation of a rank: drawn are what it does, so that rare ones have their share, and when.

        A rank that has no such operation leaves the fault to rank 0.
        """
        counted = self.bench.operations(self.case, self.workers)
        kept = (LATER,) if self.bench.in_the_middle else kinds
        ranks = [{name: count for name, count in counts.items() if name.startswith(kept)} for counts in counted]
        drawn = self.draw.randrange(self.workers)
        rank = drawn if ranks[drawn] else 0
        operation = self.draw.choice(list(ranks[rank]))
        self.bench.struck[operation] += 1
        at, later = self.draw.randrange(ranks[rank][operation]), self.draw.randrange(40)
        return Fault(action, rank, operation, at, later, self.number)

    def start(self, name: str, workers: int, fault: Fault | None = None, starter: str = "torchrun") -> Run:
        """Start the craft, which goes on where an earlier one ended."""
        words = self.bench.samples.words(self.bench.cases[self.case], self.store)
        return Run(words, workers, self.store, self.folder / name, fault, starter)

    def disturbed(self, action: str, kinds: tuple[str, ...] = KINDS) -> None:
        """The craft, with a fault."""
        run = self.start("first", self.workers, self.fault(action, kinds))
        self.check(run.end())
        if not run.struck:
            raise WrongError("the fault never happened")

    def stopped(self, starter: str = "torchrun") -> Run:
        """The craft, one rank of which has stopped."""
        run = self.start("first", self.workers, self.fault("stop"), starter)
        run.wait_for_strike()
        if not run.struck:
            raise WrongError("no rank stopped")
        return run

    def check(self, ended: Ended) -> None:
        """That a run ended within its time, in a clear way, and that it left nothing that looks whole but is not."""
        if ended.hung:
            raise WrongError("hung")
        if odd := [code for code in ended.codes if code not in CLEAR]:
            raise WrongError(f"exit code {odd[0]}: {ended.errors[-300:]}")
        if odd_lines := [line for line in ended.errors.splitlines() if not line.startswith("hpcule: ")]:
            raise WrongError(f"said {odd_lines[-1]!r} ({len(odd_lines)} such lines)")
        if any(code > 0 for code in ended.codes) and not ended.errors:
            raise WrongError(f"exit codes {ended.codes} without a word")

    def looks_whole(self) -> bool:
        """Whether a reader takes the store."""
        try:
            with StoreReader(Vault(self.store, self.key)) as reader:
                reader.delta(np.arange(reader.manifest.n))
        except HpculeError:
            return False
        return True

    def resumed(self) -> str:
        """Resume until it ends well or refuses, and say how it ended."""
        ended = self.start("again", self.again).end()
        self.check(ended)
        if any(ended.codes):
            if self.looks_whole() and not self.damages():
                raise WrongError(f"looks whole, but: {ended.errors}")
            self.bench.messages[ended.errors.splitlines()[0].replace(str(self.store), "STORE")] += 1
            return REFUSED
        if damages := self.damages():
            raise WrongError(f"verify says {damages}")
        if contents(self.store, self.key) != self.bench.expected(self.case):
            raise WrongError("other bytes than the undisturbed run")
        return SAME

    def damages(self) -> str:
        """What `hpcule verify` says."""
        words = ["verify", str(self.store), *self.bench.samples.access(self.bench.cases[self.case])]
        run = Run(words, 1, self.store, self.folder / f"verify-{time.monotonic()}")
        ended = run.end()
        if ended.hung or ended.codes[0] not in (0, 1) or "Traceback" in ended.errors:
            raise WrongError(f"verify: exit code {ended.codes[0]}, {ended.errors[-300:]}")
        return (run.folder / "0.out").read_text() if ended.codes[0] else ""


class WrongError(Exception):
    """A run ended in no way that it may."""


SAME, REFUSED, WRONG = "identical bytes", "clear error", "WRONG"


def killed(action: str) -> Callable[[Trial], str]:
    """Killed, torn or signalled at any operation."""

    def play(trial: Trial) -> str:
        trial.disturbed(action, WRITES if action == "torn" else KINDS)
        return trial.resumed()

    return play


def lied(action: str) -> Callable[[Trial], str]:
    """A file whose tail never reached the disk."""

    def play(trial: Trial) -> str:
        trial.disturbed(action, RENAMES)
        return trial.resumed()

    return play


def refused(action: str) -> Callable[[Trial], str]:
    """Nothing can be written from some operation on; then it can again."""

    def play(trial: Trial) -> str:
        trial.disturbed(action)
        return trial.resumed()

    return play


def harmless(action: str) -> Callable[[Trial], str]:
    """What must not be noticed at all."""

    def play(trial: Trial) -> str:
        trial.disturbed(action)
        if contents(trial.store) != trial.bench.expected(trial.case):
            raise WrongError("did not end undisturbed")
        return trial.resumed()

    return play


def full_disk(trial: Trial) -> str:
    """The disk is filled by somebody else, who then removes the file."""
    mount("-t", "tmpfs", "-o", f"size={DISK}", "none", str(trial.store.parent))
    try:
        trial.disturbed("fill")
        (trial.store.parent / "filler").unlink()
        return trial.resumed()
    finally:
        unmount(trial.store.parent)


def read_only(trial: Trial) -> str:
    """The store's folder turns read-only under the run, and writable again after a resume has failed."""
    try:
        trial.disturbed("read-only", RENAMES)
        if trial.damages():
            refused = trial.start("read-only", trial.again).end()
            trial.check(refused)
            if not any(refused.codes):
                raise WrongError("resumed in a read-only folder")
    finally:
        unmount(trial.store)
    return trial.resumed()


def paused(trial: Trial) -> str:
    """A rank is stopped for a second."""
    run = trial.stopped()
    time.sleep(1)
    os.kill(run.struck, signal.SIGCONT)
    trial.check(run.end())
    if contents(trial.store) != trial.bench.expected(trial.case):
        raise WrongError("did not end undisturbed")
    return trial.resumed()


def orphaned(trial: Trial) -> str:
    """A rank is stopped, and its launcher killed, which takes all ranks with it."""
    trial.workers = 2
    run = trial.stopped()
    os.kill(run.launcher, signal.SIGKILL)
    trial.check(run.end())
    return trial.resumed()


def awakened(early: bool) -> Callable[[Trial], str]:
    """A rank is stopped, its launcher and the other rank are killed, and it wakes up beside, or after, a resume."""

    def play(trial: Trial) -> str:
        trial.workers = 2
        run = trial.stopped("srun")
        os.kill(run.launcher, signal.SIGKILL)
        for process in run.pids():
            if process != run.struck:
                os.kill(process, signal.SIGKILL)
        beside = trial.start("beside", trial.again)
        if early:
            time.sleep(1)
        else:
            trial.check(beside.end())
        os.kill(run.struck, signal.SIGCONT)
        trial.check(run.end())
        trial.check(beside.end())
        return trial.resumed()

    return play


FAULTS: dict[str, tuple[int, Callable[[Trial], str]]] = {
    "one rank killed": (30, killed("kill")),
    "all ranks killed": (30, killed("kill all")),
    "torn write, all killed": (16, killed("torn")),
    "file without its tail, all killed": (10, lied("short, killed")),
    "file with a tail of zeros, all killed": (10, lied("zeros, killed")),
    "file without its tail, unnoticed": (8, lied("short")),
    "file with a tail of zeros, unnoticed": (8, lied("zeros")),
    "no space left (ENOSPC)": (14, refused("ENOSPC")),
    "disk error (EIO)": (10, refused("EIO")),
    "read-only (EROFS)": (6, refused("EROFS")),
    "full file system": (10, full_disk),
    "read-only file system": (6, read_only),
    "clock jumps": (8, harmless("clock")),
    "slow rank": (4, harmless("slow")),
    "rank stopped for a second": (6, paused),
    "rank stopped, launcher killed": (6, orphaned),
    "orphan wakes up during the resume": (4, awakened(early=True)),
    "orphan wakes up after the resume": (2, awakened(early=False)),
    "SIGTERM": (8, killed("TERM")),
    "SIGUSR1": (4, killed("USR1")),
}
"""How many of 200 runs each takes, and how it goes."""
KILLS: dict[str, tuple[int, Callable[[Trial], str]]] = {
    "one rank killed": (1, killed("kill")),
    "all ranks killed": (1, killed("kill all")),
    "all ranks killed some time later": (2, killed("kill all soon")),
}
"""Kills in the middle of work, and how often of four runs each happens."""
MOUNTED = ("full file system", "read-only file system")


class Bench:
    """Data, undisturbed runs, and a folder for everything.

    Args:
        folder: for everything.
        cases: what is crafted.
        in_the_middle: whether faults happen after the first event alone.
    """

    def __init__(self, folder: Path, cases: Mapping[str, Case], in_the_middle: bool) -> None:
        self.folder, self.cases, self.in_the_middle = folder, cases, in_the_middle
        self.samples = Samples(folder)
        self.messages: collections.Counter[str] = collections.Counter()
        self.struck: collections.Counter[str] = collections.Counter()
        self._expected: dict[str, dict[str, bytes]] = {}
        self._operations: dict[tuple[str, int], list[dict[str, int]]] = {}

    def expected(self, case: str) -> dict[str, bytes]:
        """Bytes of an undisturbed store."""
        self.operations(case, 1)
        return self._expected[case]

    def operations(self, case: str, workers: int) -> list[dict[str, int]]:
        """Operations of each kind by rank, counted in an undisturbed run."""
        if (case, workers) not in self._operations:
            place = self.folder / f"undisturbed-{len(self._operations)}"
            words = self.samples.words(self.cases[case], place / "store")
            run = Run(words, workers, place / "store", place)
            ended = run.end()
            assert not any(ended.codes), ended.errors
            found = contents(place / "store", self.samples.key(self.cases[case]))
            assert self._expected.setdefault(case, found) == found, f"{case} depends on the workers"
            self._operations[case, workers] = [notes.counted() for notes in run.notes]
        return self._operations[case, workers]


def mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True, capture_output=True)


def unmount(folder: Path) -> None:
    subprocess.run(["umount", "--lazy", str(folder)], check=False, capture_output=True)


def may_mount(folder: Path) -> str:
    """Take a mount namespace of our own; why it cannot be had, or nothing."""
    if ctypes.CDLL(None).unshare(CLONE_NEWNS):
        return "not permitted"
    try:
        mount("--make-rprivate", "/")
        mount("-t", "tmpfs", "-o", f"size={DISK}", "none", str(folder))
    except (OSError, subprocess.CalledProcessError) as error:
        return str(getattr(error, "stderr", None) or error)
    unmount(folder)
    return ""


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
