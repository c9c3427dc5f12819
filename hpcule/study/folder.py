"""A study's folder: what is planned, running, done and failed, as files that many jobs can write side by side."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from hpcule.config.documents import checked
from hpcule.config.errors import DataError, PeerLostError, StoreError, UsageError
from hpcule.config.tree import build_config, dump_yaml, load_yaml, to_tree
from hpcule.store.files import private_directory, read_json, to_json, write_atomically
from hpcule.study.config import StudyConfig
from hpcule.study.documents import (
    CraftItemDocument,
    FactsDocument,
    FailureDocument,
    ItemDocument,
    ProgressDocument,
    VictimItemDocument,
)
from hpcule.study.grid import SamplesByData, StudySamples
from hpcule.victim.keeper import Keeper
from hpcule.victim.kept import AGAIN, Kept
from hpcule.world.group import World
from hpcule.world.launcher import slurm_job

State = Literal["waiting", "queued", "running", "done", "failed", "lost", "skipped"]
"""State of a craft or a victim: `lost` if its job has ended without a word, `skipped` if its craft is not to be had."""
BEAT_SECONDS = 2.0
"""Least time between two notes of an item's progress."""
FOLDERS = ("crafts", "done", "running", "failed", "logs")


@dataclass(frozen=True)
class ItemStatus:
    """One craft or victim: its state, how far it is (0 to 1), when it should end, what went wrong, and in which job."""

    state: State
    share: float = 0.0
    seconds_left: float | None = None
    message: str = ""
    job: str = ""


@dataclass(frozen=True)
class StudyFolder:
    """DIR of `hpcule study`: study.yaml, crafts/KEY (stores), done/, running/ and failed/ with a file an item."""

    path: Path

    def begin(self, config: StudyConfig, samples: SamplesByData) -> None:
        """Create the folder, or make sure that it holds the same study, perhaps on samples that have changed.

        Raises:
            UsageError: it holds another study, or one of an earlier version.
            StoreError: it cannot be written.
        """
        tree = {**to_tree(config), "world": {}}
        if (self.path / "study.yaml").exists():
            if {**to_tree(self.config()), "world": {}} != tree:
                raise UsageError(f"{self.path} holds another study: name another --out, or take its study.yaml")
            if self.samples() != samples:
                self._note(samples)
            return
        if foreign := [name for name in ("cells.csv", "report.html") if (self.path / name).exists()]:
            raise UsageError(
                f"{self.path} holds {foreign[0]} but no study, which would be replaced: name another --out"
            )
        for folder in (self.path, *(self.path / name for name in FOLDERS)):
            private_directory(folder)
        self._note(samples)
        write_atomically(self.path / "study.yaml", dump_yaml(to_tree(config)).encode())

    def config(self) -> StudyConfig:
        """The study that was begun here.

        Raises:
            UsageError: none was, or an earlier version began it.
            StoreError: facts.json is of other data sets.
        """
        if not (self.path / "study.yaml").exists():
            raise UsageError(f"{self.path} holds no study: start one with `hpcule study run FILE --out {self.path}`")
        noted = self.samples()
        config = build_config(StudyConfig, load_yaml(self.path / "study.yaml"))
        with damage_named(self.path / "facts.json", "restore it"):
            for name in config.data_sets:
                noted[name]
        return config

    def samples(self) -> SamplesByData:
        """The samples that the study's results are of.

        Raises:
            UsageError: an earlier version began the study, and did not note which samples they are.
        """
        path = self.path / "facts.json"
        with damage_named(path, "restore it"):
            facts = read_json(path)
            if "training" in facts:  # of an earlier version, whose studies had one data set each
                facts = {"data": {load_yaml(self.path / "study.yaml")["data"]: facts}}
            if "data" in facts:
                found: FactsDocument = checked(facts, FactsDocument)
                return {
                    name: StudySamples(entry["samples"], entry["training"], entry["test"])
                    for name, entry in found["data"].items()
                }
            int(facts["samples"])
        raise UsageError(
            f"{self.path} was begun by an earlier version, whose results do not say which samples they are of: its "
            "cells.csv and report.html stay as they are; run the study with another --out"
        )

    def _note(self, samples: SamplesByData) -> None:
        facts: FactsDocument = {
            "data": {
                name: {"samples": entry.n, "training": entry.training, "test": entry.test}
                for name, entry in samples.items()
            }
        }
        write_atomically(self.path / "facts.json", to_json(facts))

    def store(self, craft: str) -> Path:
        """The store of a craft."""
        return self.path / "crafts" / craft

    def result(self, key: str) -> ItemDocument | None:
        """What a finished item found, or None."""
        return self._find(key, ItemDocument)

    def craft_result(self, key: str) -> CraftItemDocument | None:
        """What a finished craft found, or None."""
        return cast("CraftItemDocument | None", self._find(key, CraftItemDocument))

    def victim_result(self, key: str) -> VictimItemDocument | None:
        """What a finished victim found, or None."""
        return cast("VictimItemDocument | None", self._find(key, VictimItemDocument))

    def best(self, crafts: Sequence[str]) -> str:
        """The craft whose loss ended lowest; crafts that failed are no candidates.

        Raises:
            DataError: none of them is finished.
        """
        if len(crafts) == 1:
            return crafts[0]
        losses: dict[str, float] = {}
        for key in crafts:
            if result := self.craft_result(key):
                with damage_named(self._file("done", key), AGAIN):
                    # Methods that report no loss have one craft.
                    losses[key] = float(cast(float, result["loss_last"]))
        if not losses:
            raise DataError(f"none of the crafts to choose from is finished: {', '.join(crafts)}")
        return min(losses, key=lambda key: losses[key])

    def finish(self, key: str, result: ItemDocument) -> None:
        """Note an item's result."""
        self._done(ItemDocument).keep(key, result)
        self._file("running", key).unlink(missing_ok=True)
        self._file("failed", key).unlink(missing_ok=True)

    def fail(self, key: str, error: BaseException) -> None:
        """Note why an item failed, where, and in which log to look; the loss of another rank is no cause of its own."""
        if isinstance(error, PeerLostError) and self._file("failed", key).exists():
            return
        error_text = str(error) or type(error).__name__
        record: FailureDocument = {"error": error_text, "host": socket.gethostname(), "job": slurm_job()}
        write_atomically(self._file("failed", key), to_json(record))
        self._file("running", key).unlink(missing_ok=True)

    def forget_failure(self, key: str) -> None:
        """Remove the note on why an item failed, because it is done again."""
        self._file("failed", key).unlink(missing_ok=True)

    def keeper(self, key: str, world: World) -> Keeper:
        """Where the training of a victim keeps its state until its result is there; see `Kept.keeper`."""
        return self._done(VictimItemDocument).keeper(key, world)

    def status(self, key: str) -> ItemStatus:
        """How an item stands, from its files alone."""
        if self._file("done", key).exists():
            return ItemStatus("done", 1.0)
        failed = cast("FailureDocument | None", self._read("failed", key, FailureDocument))
        running = cast("ProgressDocument | None", self._read("running", key, ProgressDocument))
        return self._unfinished(failed, running)

    def _unfinished(self, failed: FailureDocument | None, running: ProgressDocument | None) -> ItemStatus:
        if failed is not None:
            message = f"{failed['error']} (on {failed['host']})"
            return ItemStatus("failed", message=message, job=failed["job"] or "")
        if running is None:
            return ItemStatus("waiting")
        share = running["done"] / max(1, running["total"])
        elapsed = running["time"] - running["started"]
        left = elapsed * (1 - share) / share if share else None
        message = f"{running['stage']} on {running['host']}"
        return ItemStatus("running", share, left, message, running.get("job", ""))

    def _done(self, expected: object) -> Kept[ItemDocument]:
        return Kept(self.path / "done", lambda found: found, lambda tree: checked(tree, expected))

    def _find(self, key: str, expected: object) -> ItemDocument | None:
        return self._done(expected).find(key)

    def _file(self, state: str, key: str) -> Path:
        return self.path / state / f"{key}.json"

    def _read(self, state: str, key: str, expected: object) -> Any:
        path = self._file(state, key)
        with damage_named(path, AGAIN):
            try:
                return checked(read_json(path), expected)
            except FileNotFoundError:
                return None


@contextmanager
def damage_named(path: Path, remedy: str) -> Iterator[None]:
    """Turn what damaged JSON leads to into a StoreError that names its file."""
    try:
        yield
    except (OSError, ValueError, LookupError, TypeError, ArithmeticError) as error:
        raise StoreError(f"{path} is damaged ({type(error).__name__}: {error}); {remedy}") from None


@dataclass
class Beat:
    """Notes an item's progress for `hpcule study status`."""

    folder: StudyFolder
    key: str
    started: float = field(default_factory=time.time)
    _last: float = 0.0

    def __post_init__(self) -> None:
        """Forget why the item failed the last time."""
        self.folder.forget_failure(self.key)

    def note(self, stage: str, done: int, total: int) -> None:
        """Write how far it is, unless that was written a moment ago."""
        now = time.time()
        if now - self._last < BEAT_SECONDS:
            return
        self._last = now
        facts: ProgressDocument = {
            "stage": stage,
            "done": done,
            "total": total,
            "started": self.started,
            "time": now,
            "host": socket.gethostname(),
            "job": slurm_job(),
        }
        path = self.folder.path / "running" / f"{self.key}.json"
        # A lost note costs nothing, and a shared file system would take long to make it durable.
        write_atomically(path, to_json(facts), durable=False)
