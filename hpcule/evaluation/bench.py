"""What every measurement of a store works with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hpcule.data.source import Source
from hpcule.store.read import StoreReader
from hpcule.world.group import World
from hpcule.world.signals import StopFlag

Report = Callable[[str, int, int], None]
"""Called with what is being done, and how much of it is done and in all."""


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What measurements of stores of the same samples share.

    Attributes:
        source: the clean samples that the stores were made for, labelled.
        test: clean test samples of the same task, labelled.
        out: folder of what is kept, so that a second run makes only what is missing.
        world: its ranks share out the work.
        report: called with what is being done, and how much of this rank's work is done and in all.
        plan: called with the number of victims to train and about how many seconds that takes; None: nobody is, and it
            is not estimated.
        left: where it is estimated, called whenever more is done with the number of this rank's victims that are done,
            the number of all of them, and about how many seconds the others take.
        tell: called with sentences on what was decided on the way.
        stop: set where victims are to stop; None: signals set it.
    """

    source: Source
    test: Source
    out: Path
    world: World
    report: Report
    plan: Callable[[int, float], None] | None = None
    left: Callable[[int, int, float], None] = lambda done, total, seconds: None
    tell: Callable[[str], None] = lambda text: None
    stop: StopFlag | None = None

    def bench(self, name: str, store: StoreReader) -> Bench:
        """The setup with one of several stores, whose name precedes what is reported."""
        return Bench(
            store=store,
            source=self.source,
            test=self.test,
            out=self.out,
            world=self.world,
            report=prefixed(name, self.report),
            left=self.left,
            tell=lambda text: self.tell(f"{name}: {text}"),
            stop=self.stop,
        )


@dataclass(frozen=True, kw_only=True)
class Bench(Setup):
    """A setup with the store that is measured, which is complete."""

    store: StoreReader


def prefixed(name: str, report: Report) -> Report:
    """Report with a store's name before what is being done."""
    return lambda label, done, total: report(f"{name}: {label}", done, total)
