"""The driver of a craft run: opens the store, turns the method's events into shards and checkpoints, and finishes."""

from __future__ import annotations

import dataclasses
import resource
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from dataclasses import astuple, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

from hpcule.config.errors import StoppedError
from hpcule.config.tree import dump_yaml, to_tree
from hpcule.craft.cache import Cache
from hpcule.craft.config import CraftConfig
from hpcule.craft.journal import BatchesDocument, Clock, Journal, TimesDocument, counted_batches
from hpcule.craft.method import Event, Method, Problem, ShardResult, SharedResult, Step
from hpcule.craft.preparation import check, cut_into_shards, is_complete, plan
from hpcule.craft.table import find
from hpcule.data.partition import Partition
from hpcule.data.reader import HOST, Reader
from hpcule.data.source import Source
from hpcule.store import checkpoint
from hpcule.store.behind import WriteBehind
from hpcule.store.files import private_directory
from hpcule.store.fingerprint import combine, shard_digest
from hpcule.store.lock import StoreLock
from hpcule.store.manifest import Manifest, read_manifest
from hpcule.store.vault import Vault
from hpcule.store.write import ShardNote, begin, finish, finished_shards, shard_notes
from hpcule.world.group import World
from hpcule.world.precision import has_fast_bf16
from hpcule.world.signals import StopFlag, unhurried

Report = Callable[[Step], None]
CHECKPOINT_SHARE = 20
"""How many times as long as a checkpoint took the run goes on before the next one, at least."""


class CraftDocument(TimesDocument, BatchesDocument):
    """Summary of a craft, as `hpcule craft --json` prints it: sizes, batches as they were taken, where the time went,
    and the largest rank's peak memory."""

    store: str
    method: str
    preset: str
    reduced: bool
    samples: int
    shards: int
    workers: int
    peak_memory_mebibytes: int
    already_complete: bool
    """Whether an earlier run had crafted the store."""


def craft(
    config: CraftConfig,
    source: Source,
    vault: Vault,
    world: World,
    stop: StopFlag,
    *,
    resume: bool,
    report: Report,
    cache: Path | None = None,
) -> CraftDocument:
    """Craft the perturbation of a source into a store, together with all other ranks of `world`.

    In `cache` it keeps, and looks for, what crafts on the same samples share.

    Raises:
        StoppedError: asked to stop by a signal; a checkpoint is written.
        StoreError: the store cannot be written, is in use, or belongs to another run.
    """
    world.lead(lambda: check(config, source, vault, resume=resume, workers=world.size))
    config = _with_seed(config, vault, world)
    cut = cut_into_shards(config, source, world.size)
    world.lead(lambda: _make_folders(vault.path))
    clock = Clock(world)
    with StoreLock(vault.path) as lock:
        world.lead(lock.exclusive_then_shared)
        if not world.leads:
            lock.shared()
        # Methods without a surrogate compute on the host.
        device = world.device if find(config.method.name).facts.needs_surrogate else HOST
        reader = Reader(source, cut, config.world.resident_mebibytes * 2**20, device)
        labelled = find(config.method.name).needs_labels(config.method)
        fingerprint = clock.measure("read", lambda: _fingerprint(reader, cut, world, labelled))
        bf16 = config.precision == "bf16" or (config.precision == "auto" and has_fast_bf16(world.device))
        manifest = plan(config, source, cut, fingerprint, bf16)
        complete = is_complete(vault, manifest, world)
        if not complete:
            kept = Cache(cache / fingerprint[:32] if cache else None)
            _run(config, reader, vault, manifest, world, stop, clock, report, kept, bf16=bf16)
    return _summary(config, vault.path, manifest, world, clock, already_complete=complete)


def _make_folders(store: Path) -> None:
    for folder in (store, store / "run"):
        private_directory(folder)


def _with_seed(config: CraftConfig, vault: Vault, world: World) -> CraftConfig:
    """The configuration with a seed: the store's where a run is resumed, else one from the operating system."""
    if config.seed is not None:
        return config
    seed = world.lead(lambda: read_manifest(vault).seed if vault.begun else secrets.randbits(63))
    return dataclasses.replace(config, seed=seed)


def _run(
    config: CraftConfig,
    reader: Reader,
    vault: Vault,
    manifest: Manifest,
    world: World,
    stop: StopFlag,
    clock: Clock,
    report: Report,
    cache: Cache,
    *,
    bf16: bool,
) -> None:
    assert config.seed is not None
    method_class = find(config.method.name)
    own = reader.partition.owned(world.rank, world.size)
    problem = Problem(
        reader.source,
        reader.partition,
        reader,
        world,
        seed=config.seed,
        exact=config.deterministic,
        autocast=bf16,
        done=frozenset(finished_shards(vault, manifest, own)),
        cache=cache,
        crafted_for=method_class.tasks(config.method),
    )
    method = method_class(config.method, problem)

    def begin_store() -> None:
        if not vault.begun:
            begin(vault, manifest)
            vault.write("run/config.yaml", dump_yaml(to_tree(config)).encode())

    # Only now: what a method refuses on any rank must leave no store behind.
    world.barrier()
    world.lead(begin_store)
    journal = Journal(vault.path, world, clock.sections["craft"]) if method.notes_steps(world) else None
    with (
        nullcontext() if journal is None else closing(journal),
        WriteBehind(vault, manifest) as writer,
        stop.watched(),
    ):

        def note(step: Step) -> None:
            if journal is not None:
                journal.note(step)
            report(step)

        _Loop(method, problem, vault, manifest, writer, stop, clock, note, config.world.checkpoint_seconds).run()
    clock.measure("finish", lambda: _finish(vault, manifest, own, world))


def _finish(vault: Vault, manifest: Manifest, own: Sequence[int], world: World) -> None:
    """Write the manifest of the complete store; each rank reads the notes of its own shards."""
    notes = {index: astuple(note) for index, note in shard_notes(vault, manifest, own).items()}
    found = world.collect(notes)

    def write() -> None:
        everyone = {index: ShardNote(*note) for part in found or () for index, note in part.items()}
        finish(vault, manifest, everyone)
        checkpoint.remove_all(vault.path)

    world.lead(write)


@dataclass
class _Loop:
    method: Method[Any]
    problem: Problem
    vault: Vault
    manifest: Manifest
    writer: WriteBehind
    stop: StopFlag
    clock: Clock
    report: Report
    checkpoint_seconds: float
    checkpoints: int = 0
    pause: float = field(init=False)
    """Seconds between two checkpoints."""

    def __post_init__(self) -> None:
        self.pause = self.checkpoint_seconds

    def run(self) -> None:
        """Take events until no rank has any left; all ranks agree after each one whether to save or to stop."""
        if (saved := self._saved()) is not None:
            self.method.restore(saved)
            self.checkpoints = saved.step
        events, world = self.method.run(), self.problem.world
        last_save = time.monotonic()
        while True:
            event: Event | None = self.clock.measure("craft", lambda: next(events, None))
            self.clock.measure("write", self.writer.wait if event is None else partial(self._handle, event))
            due = world.leads and time.monotonic() - last_save >= self.pause
            alive, stopping, saving = world.maximum([event is not None, bool(self.stop), due])
            if not alive:
                return
            if stopping or saving:
                begun = time.monotonic()
                with unhurried():
                    self.clock.measure("write", self._save)
                last_save = time.monotonic()
                self.pause = pause_after(last_save - begun, self.checkpoint_seconds)
            if stopping:
                reason = self.stop.name or "a signal to another rank"
                raise StoppedError(
                    f"stopped by {reason}, saved: run the same command again to continue, craft with --resume"
                )

    def _handle(self, event: Event) -> None:
        if isinstance(event, Step):
            self.report(event)
        elif isinstance(event, ShardResult):
            labelled = self.manifest.labelled and self.problem.source.labels is not None
            part = self.problem.classes(self.problem.partition.ids(event.shard)) if labelled else None
            delta = None if event.delta is None else event.delta.astype(self.manifest.delta_dtype, copy=False)
            self.writer.shard(event.shard, part, delta=delta, group=event.group, spectrum=event.spectrum)
        elif isinstance(event, SharedResult) and self.problem.world.leads:
            self.writer.shared(event.delta.astype(self.manifest.delta_dtype, copy=False))

    def _saved(self) -> checkpoint.Checkpoint | None:
        """The last checkpoint, if any: rank 0 looks for it and reads what is shared, once for all ranks."""
        vault = self.vault

        def find() -> tuple[int, dict[str, tuple[Any, ...]], bytes] | None:
            found = checkpoint.latest(vault, self.manifest.run_key)
            if found is None:
                return None
            return found.step, {name: astuple(part) for name, part in found.parts.items()}, found.read("shared")

        found = self.problem.world.lead(find)
        if found is None:
            return None
        step, places, shared = found
        parts = {name: checkpoint.CheckpointPart(*place) for name, place in places.items()}
        return checkpoint.Checkpoint(vault, step, parts, {"shared": shared})

    def _save(self) -> None:
        # A checkpoint does not hold what was handed over.
        self.writer.wait()
        self.checkpoints += 1
        number, world = self.checkpoints, self.problem.world
        state = self.method.state()
        world.lead(lambda: checkpoint.make_folder(self.vault, number))
        states = {"shared": state.shared, **state.parts} if world.leads else state.parts
        written = world.collect(checkpoint.save(self.vault, number, world.rank, states).plain())

        def commit() -> None:
            files = [checkpoint.WrittenFile.of(plain) for plain in written or ()]
            checkpoint.commit(self.vault, number, self.manifest.run_key, files)

        world.lead(commit)


def pause_after(cost: float, least: float) -> float:
    """Seconds until the next checkpoint after one that took `cost` seconds: `least`, or as long as keeps checkpoints at
    a twentieth of the time. Where `least` is 0, all are wanted."""
    return max(least, CHECKPOINT_SHARE * cost) if least else 0.0


def _fingerprint(reader: Reader, cut: Partition, world: World, labelled: bool) -> str:
    """Read all own shards once: finds unreadable samples before any work, and identifies the data."""
    source, mine = reader.source, {}
    for shard in cut.owned(world.rank, world.size):
        samples = reader.shard(shard).cpu().numpy().astype(source.dtype, copy=False)
        mine[shard] = shard_digest(samples, source, cut.range(shard)[0], labelled=labelled)
    parts = world.collect(mine)

    def joined() -> str:
        digests = {shard: digest for part in parts or () for shard, digest in part.items()}
        return combine([digests[shard] for shard in range(cut.count)], source.shape, source.levels)

    return world.lead(joined)


def _summary(
    config: CraftConfig, store: Path, manifest: Manifest, world: World, clock: Clock, *, already_complete: bool
) -> CraftDocument:
    asked = getattr(config.method, "batch", None)
    batches = world.lead(lambda: cast("dict[str, int | None]", counted_batches(store, asked)))
    (peak,) = world.maximum([resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024])
    return {
        "store": str(store),
        "method": manifest.method,
        "preset": config.preset,
        "reduced": manifest.reduced,
        "samples": manifest.n,
        "shards": len(manifest.shards),
        "workers": world.size,
        **cast("BatchesDocument", batches),
        **clock.summary(),
        "peak_memory_mebibytes": round(peak),
        "already_complete": already_complete,
    }
