"""One run of the matrix: a craft that is disturbed and resumed, and what it must end like."""

from __future__ import annotations

import collections
import random
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from cases import Case, Samples, contents
from inject import KINDS, LATER, Fault
from ranks import Ended, Run

from hpcule.config.errors import HpculeError
from hpcule.store.read import StoreReader
from hpcule.store.seal import Key
from hpcule.store.vault import Vault

SAME, REFUSED, WRONG = "identical bytes", "clear error", "WRONG"
"""How a run ends."""
CLEAR = (0, 1, 69, 75, -signal.SIGKILL)
"""Exit codes of a disturbed run: done, failed, lost a peer, stopped and saved, killed."""


class WrongError(Exception):
    """A run ended in no way that it may."""


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
