"""Where a run's time went, and what each rank did when."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict, TypeVar

from hpcule.craft.method import Step
from hpcule.store.files import parse_json, writing
from hpcule.world.group import Spent, World

T = TypeVar("T")
SECTIONS = ("read", "craft", "write", "finish")
"""Reading all samples once, the method itself, shards and checkpoints, and the manifest and index at the end."""


class TimesDocument(TypedDict):
    """Seconds of each section on its slowest rank, then those of the whole run, in four parts that add up.

    `storage_seconds`: reading and writing, mean over the ranks. `communication_seconds`: collectives on the rank that
    spent the least in them, for which the others waited. `wait_seconds`: what the mean rank spent in them beyond that.
    `compute_seconds`: the rest.
    """

    read_seconds: float
    craft_seconds: float
    write_seconds: float
    finish_seconds: float
    run_seconds: float
    compute_seconds: float
    wait_seconds: float
    communication_seconds: float
    storage_seconds: float


class BatchesDocument(TypedDict):
    """The batches of a run's training: samples asked for and, counted, taken in a step, of which only the last of an
    epoch may have fewer; number of steps, and samples that they took. None where a method takes no batches, and where
    a run has no journal of them."""

    batch_asked: int | None
    batch_taken: int | None
    steps: int | None
    samples_seen: int | None


Entry = dict[str, Any]
"""A line of a journal; the figures in it differ from method to method."""


class LineDocument(TypedDict):
    """What every line of a journal holds: when and where a step ended, how far its stage is, and what the method has
    taken so far. Number, samples and largest of its batches, the method's figures of the step and the norms of its
    gradients follow, by their own names."""

    time: float
    host: str
    rank: int
    world: int
    stage: str
    done: int
    total: int
    craft_seconds: float
    collectives: int
    collective_seconds: float


@dataclass
class Section:
    """Seconds of one part of a run, those in collectives among them, on this rank."""

    seconds: float = 0.0
    spent: Spent = field(default_factory=Spent)

    @property
    def alone(self) -> float:
        """Seconds outside collectives."""
        return self.seconds - self.spent.seconds


@dataclass
class Clock:
    """Where a run's time went on this rank, from now on."""

    world: World
    sections: dict[str, Section] = field(default_factory=lambda: {name: Section() for name in SECTIONS})

    def __post_init__(self) -> None:
        """Start the journal's clock."""
        self._start = time.perf_counter()
        self._spent = self.world.spent.copy()

    def measure(self, what: str, work: Callable[[], T]) -> T:
        """Run `work` and add what it takes to the section `what`."""
        start, before = time.perf_counter(), self.world.spent.copy()
        section = self.sections[what]
        try:
            return work()
        finally:
            section.seconds += time.perf_counter() - start
            section.spent.add(self.world.spent, before)

    def summary(self) -> TimesDocument:
        """Where the time of all ranks went until now; a collective."""
        self.world.barrier()
        run = time.perf_counter() - self._start
        collective = self.world.spent.seconds - self._spent.seconds
        storage = sum(section.alone for name, section in self.sections.items() if name != "craft")
        sections = [section.seconds for section in self.sections.values()]
        ranks = self.world.gather([run, storage, collective, *sections])
        run, storage, collective = (sum(rank[part] for rank in ranks) / len(ranks) for part in range(3))
        communication = min(rank[2] for rank in ranks)
        slowest = {name: max(rank[3 + number] for rank in ranks) for number, name in enumerate(SECTIONS)}
        return {
            "read_seconds": round(slowest["read"], 3),
            "craft_seconds": round(slowest["craft"], 3),
            "write_seconds": round(slowest["write"], 3),
            "finish_seconds": round(slowest["finish"], 3),
            "run_seconds": round(run, 3),
            "compute_seconds": round(run - storage - collective, 3),
            "wait_seconds": round(collective - communication, 3),
            "communication_seconds": round(communication, 3),
            "storage_seconds": round(storage, 3),
        }


class Journal:
    """run/log-RANK.jsonl of one of the ranks that take the same steps: what it did when, one line a step, with what the
    method has taken so far."""

    def __init__(self, store: Path, world: World, crafting: Section) -> None:
        self._path = store / "run" / f"log-{world.rank:05d}.jsonl"
        with writing(self._path):
            self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        self._world = world
        self._crafting = crafting

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)

    def note(self, step: Step) -> None:
        """Append a line."""
        spent = self._crafting.spent
        line: LineDocument = {
            "time": round(time.time(), 3),
            "host": self._world.place.host,
            "rank": self._world.rank,
            "world": self._world.size,
            "stage": step.stage,
            "done": step.done,
            "total": step.total,
            "craft_seconds": round(self._crafting.seconds, 6),
            "collectives": spent.calls,
            "collective_seconds": round(spent.seconds, 6),
        }
        norms: Mapping[str, object] = step.norms.document() if step.norms else {}
        sizes = step.batches
        taken = {"batches": len(sizes), "samples": sum(sizes), "batch": max(sizes)} if sizes else {}
        with writing(self._path):
            os.write(self._file, (json.dumps({**line, **step.figures, **norms, **taken}) + "\n").encode())


def read_journal(store: Path) -> list[Entry]:
    """One entry for each step of each cluster, in order: ranks that worked together on it, and runs that were cut off
    and went on, have noted it more than once."""
    entries: dict[tuple[str, int, int], Entry] = {}
    for path in sorted((store / "run").glob("log-*.jsonl")):
        for line in path.read_bytes().splitlines():
            try:
                entry = parse_json(line)
            except ValueError:  # cut off in the middle of a line
                continue
            if "step" in entry:
                entries[entry["stage"], entry.get("cluster", 0), entry["step"]] = entry
    return [entries[place] for place in sorted(entries)]


def counted_batches(store: Path, asked: int | None) -> BatchesDocument:
    """The batches of all steps in a store's journal, where `asked` samples a batch were asked for."""
    try:
        taken = [entry for entry in read_journal(store) if "batches" in entry]
        largest = max((entry["batch"] for entry in taken), default=None)
        steps, samples = (sum(entry[name] for entry in taken) for name in ("batches", "samples"))
    except (LookupError, TypeError):
        # Lines that no craft has noted are no reason to refuse a store that is whole.
        largest = None
    if largest is None:
        return {"batch_asked": asked, "batch_taken": None, "steps": None, "samples_seen": None}
    return {"batch_asked": asked, "batch_taken": largest, "steps": steps, "samples_seen": samples}
