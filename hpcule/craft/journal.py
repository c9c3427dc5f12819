"""Where a run's time went, and what each rank did when."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeVar

from hpcule.craft.method import Step
from hpcule.world.group import World

T = TypeVar("T")


@dataclass
class Clock:
    """Where a run's time went, in seconds of this rank."""

    seconds: dict[str, float] = field(default_factory=lambda: {"read": 0.0, "craft": 0.0, "write": 0.0})

    def measure(self, what: str, work: Callable[[], T]) -> T:
        """Run `work` and add its duration to `what`."""
        start = time.perf_counter()
        try:
            return work()
        finally:
            self.seconds[what] += time.perf_counter() - start


class Journal:
    """run/log-RANK.jsonl: what this rank did when, one line a step."""

    def __init__(self, store: Path, world: World) -> None:
        path = store / "run" / f"log-{world.rank:05d}.jsonl"
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._start = {"host": world.place.host, "rank": world.rank, "world": world.size}

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)

    def note(self, step: Step) -> None:
        """Append a line."""
        line = {"time": round(time.time(), 3), **self._start, "stage": step.stage, "done": step.done}
        norms = asdict(step.norms) if step.norms else {}
        os.write(self._file, (json.dumps({**line, "total": step.total, **step.figures, **norms}) + "\n").encode())
