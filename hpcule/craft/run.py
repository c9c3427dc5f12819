"""The driver of a craft run: opens the store, turns the method's events into shards and checkpoints, and finishes."""

from __future__ import annotations

import dataclasses
import resource
import secrets
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
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
from hpcule.store.write import begin, finish, finished_shards
from hpcule.world.group import World
from hpcule.world.precision import has_fast_bf16
from hpcule.world.signals import StopFlag, unhurried

Report = Callable[[Step], None]


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
    check(config, source, vault, resume=resume, workers=world.size)
    config = _with_seed(config, vault, world)
    cut = cut_into_shards(config, source, world.size)
    # Nobody writes before everybody has looked: a late rank would find another's first file and refuse the folder.
    world.barrier()
    clock = Clock(world)
    private_directory(vault.path)
    private_directory(vault.path / "run")
    with StoreLock(vault.path) as lock:
        if world.leads:
            lock.exclusive_then_shared()
        world.barrier()
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


def _with_seed(config: CraftConfig, vault: Vault, world: World) -> CraftConfig:
    """The configuration with a seed: the store's where a run is resumed, else one from the operating system."""
    if config.seed is not None:
        return config
    seed = (read_manifest(vault).seed if vault.begun else secrets.randbits(63)) if world.leads else None
    return dataclasses.replace(config, seed=world.gather(seed)[0])


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
    problem = Problem(
        reader.source,
        reader.partition,
        reader,
        world,
        seed=config.seed,
        exact=config.deterministic,
        autocast=bf16,
        # Only rank 0 reads the shards that an earlier run has finished.
        done=frozenset(world.gather(finished_shards(vault, manifest) if world.leads else set())[0]),
        cache=cache,
        crafted_for=method_class.tasks(config.method),
    )
    method = method_class(config.method, problem)
    # Only now: what a method refuses must leave no store behind.
    world.barrier()
    if world.leads and not vault.begun:
        begin(vault, manifest)
        vault.write("run/config.yaml", dump_yaml(to_tree(config)).encode())
    world.barrier()
    with (
        closing(Journal(vault.path, world, clock.sections["craft"])) as journal,
        WriteBehind(vault, manifest) as writer,
        stop.watched(),
    ):

        def note(step: Step) -> None:
            journal.note(step)
            report(step)

        _Loop(method, problem, vault, manifest, writer, stop, clock, note, config.world.checkpoint_seconds).run()
    world.barrier()
    if world.leads:
        clock.measure("finish", lambda: finish(vault, manifest))
        checkpoint.remove_all(vault.path)


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

    def run(self) -> None:
        """Take events until no rank has any left; all ranks agree after each one whether to save or to stop."""
        saved = checkpoint.latest(self.vault, self.manifest.run_key)
        if saved is not None:
            self.method.restore(saved)
            self.checkpoints = saved.step
        events, world = self.method.run(), self.problem.world
        last_save = time.monotonic()
        while True:
            event: Event | None = self.clock.measure("craft", lambda: next(events, None))
            self.clock.measure("write", self.writer.wait if event is None else partial(self._handle, event))
            due = world.leads and time.monotonic() - last_save >= self.checkpoint_seconds
            alive, stopping, saving = world.maximum([event is not None, bool(self.stop), due])
            if not alive:
                return
            if stopping or saving:
                with unhurried():
                    self.clock.measure("write", self._save)
                last_save = time.monotonic()
            if stopping:
                reason = self.stop.name or "a signal to another rank"
                raise StoppedError(
                    f"stopped by {reason}, saved: run the same command again to continue, craft with --resume"
                )

    def _handle(self, event: Event) -> None:
        if isinstance(event, Step):
            self.report(event)
        elif isinstance(event, ShardResult):
            labels = self.problem.source.labels if self.manifest.labelled else None
            part = labels[self.problem.partition.ids(event.shard)] if labels is not None else None
            delta = None if event.delta is None else event.delta.astype(self.manifest.delta_dtype, copy=False)
            self.writer.shard(event.shard, part, delta=delta, group=event.group, spectrum=event.spectrum)
        elif isinstance(event, SharedResult) and self.problem.world.leads:
            self.writer.shared(event.delta.astype(self.manifest.delta_dtype, copy=False))

    def _save(self) -> None:
        # A checkpoint does not hold what was handed over.
        self.writer.wait()
        self.checkpoints += 1
        state, world = self.method.state(), self.problem.world
        states = {"shared": state.shared, **state.parts} if world.leads else state.parts
        written = {
            name: checkpoint.save_part(self.vault, self.checkpoints, name, part) for name, part in states.items()
        }
        # Ranks send each other plain values alone.
        everyone = world.gather({name: dataclasses.astuple(part) for name, part in written.items()})
        parts = {name: checkpoint.CheckpointPart(*part) for rank in everyone for name, part in rank.items()}
        if world.leads:
            checkpoint.commit(self.vault, self.checkpoints, self.manifest.run_key, parts)
        world.barrier()


def _fingerprint(reader: Reader, cut: Partition, world: World, labelled: bool) -> str:
    """Read all own shards once: finds unreadable samples before any work, and identifies the data."""
    source, mine = reader.source, {}
    for shard in cut.owned(world.rank, world.size):
        samples = reader.shard(shard).cpu().numpy().astype(source.dtype, copy=False)
        mine[shard] = shard_digest(samples, source, cut.range(shard)[0], labelled=labelled)
    digests = {shard: digest for part in world.gather(mine) for shard, digest in part.items()}
    return combine([digests[shard] for shard in range(cut.count)], source.shape, source.levels)


def _summary(
    config: CraftConfig, store: Path, manifest: Manifest, world: World, clock: Clock, *, already_complete: bool
) -> CraftDocument:
    asked = getattr(config.method, "batch", None)
    batches = cast("BatchesDocument", world.gather(counted_batches(store, asked) if world.leads else None)[0])
    (peak,) = world.maximum([resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024])
    return {
        "store": str(store),
        "method": manifest.method,
        "preset": config.preset,
        "reduced": manifest.reduced,
        "samples": manifest.n,
        "shards": len(manifest.shards),
        "workers": world.size,
        **batches,
        **clock.summary(),
        "peak_memory_mebibytes": round(peak),
        "already_complete": already_complete,
    }
