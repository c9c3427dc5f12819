"""`hpcule.craft`: the perturbation of a collection, into a store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal, cast

from hpcule.config.errors import UsageError

if TYPE_CHECKING:
    from hpcule.config.run import Preset
    from hpcule.config.tree import Tree
    from hpcule.craft.config import CraftConfig
    from hpcule.craft.run import CraftDocument
    from hpcule.data.source import Source
    from hpcule.interface.handover import Data, Labels
    from hpcule.interface.process import Progress
    from hpcule.interface.stores import Store
    from hpcule.store.vault import Vault

Strength = Literal["subtle", "standard", "strong"]


@dataclass(frozen=True)
class CraftResult:
    """What a craft run did.

    Attributes:
        path: the folder of the store.
        key: where the key of an encrypted store is; None: it is not encrypted.
        method: name of the method.
        preset: "paper", "small" or "smoke".
        reduced: whether the preset has settings below those of the paper.
        samples: number of samples.
        shards: number of files that the perturbation is in.
        workers: number of processes.
        seconds: surrogate and noise, without start-up, reading and writing.
        peak_memory_mebibytes: largest resident memory of a worker; of this process where there is one worker.
        already_complete: whether a resumed run found nothing left to do.
        batch_asked: samples of a training step by the settings; None: the method takes no batches.
        batch_taken: samples of a training step, counted; the last of an epoch may have had fewer.
        steps: training steps.
        samples_seen: samples that these steps took.
    """

    path: Path
    key: str | Path | None = field(repr=False)
    method: str
    preset: str
    reduced: bool
    samples: int
    shards: int
    workers: int
    seconds: float
    peak_memory_mebibytes: int
    already_complete: bool
    batch_asked: int | None
    batch_taken: int | None
    steps: int | None
    samples_seen: int | None

    @property
    def store(self) -> Store:
        """The store, opened."""
        from hpcule.interface.stores import open_store

        return open_store(self.path, key=self.key)


def craft(
    method: str,
    *,
    data: Data,
    out: str | Path,
    labels: Labels | None = None,
    workers: int = 1,
    preset: Preset | None = None,
    strength: Strength | None = None,
    seed: int | None = None,
    deterministic: bool = False,
    image_size: int | None = None,
    resume: bool = False,
    key: str | Path | None = None,
    settings: Mapping[str, object] | None = None,
    progress: Progress | None = None,
    **method_settings: object,
) -> CraftResult:
    """Craft the perturbation of a collection into a store, as `hpcule craft` does.

    With one worker it runs in this process, which keeps its threads, its signal handlers and torch's switches. More
    workers are processes of their own.

    Args:
        method: `hpcule.methods()` lists them.
        data: a path or a name as for `--data`; uint8 or uint16 images, numpy [N, H, W] or [N, H, W, C], torch
            [N, H, W] or [N, C, H, W]; or a map-style data set of (image, label). Floats in [0, 1] are taken where every
            value is a multiple of 1/255, and refused otherwise.
        out: folder of the store, absent or empty; it is kept private.
        labels: class numbers [N], for arrays and for data sets that have none.
        workers: number of processes on this machine.
        preset: "paper" (default), "small" (minutes) or "smoke" (seconds).
        strength: "subtle", "standard" or "strong": half, once or twice the method's usual epsilon.
        seed: None: 0 for a method with a surrogate, else drawn from the operating system.
        deterministic: the same bytes for every number of workers.
        image_size: resize every image to this height and width in pixels first.
        resume: continue an interrupted run in `out`.
        key: encrypt the store with the key in this file, or in `keyring:NAME`.
        settings: all other settings by their dotted names, {"world.threads": 1, "store.shards": 8}.
        progress: called with a stage, the steps that are done, and all its steps; None: they go to the logger `hpcule`.
        method_settings: settings of the method: `epsilon=8` is `--set method.epsilon=8`.

    Raises:
        UsageError: an unknown method or setting, a value out of range, a folder that is not empty, too many workers.
        DataError: the data cannot be read, have no labels where the method needs them, or are no images on a grid.
        StoreError: the store belongs to another run, is in use, or cannot be written.
        WorkerError: a worker process failed.
    """
    from hpcule.craft.preparation import batch_notice, check
    from hpcule.data.left_out import left_out_notice
    from hpcule.interface.handover import handed_over
    from hpcule.interface.process import log
    from hpcule.interface.settings import nested
    from hpcule.store.keys import vault_of

    if workers < 1:
        raise UsageError(f"workers={workers}: at least 1")
    own: dict[str, object] = {"deterministic": True} if deterministic else {}
    own |= {name: value for name, value in (("seed", seed), ("image_size", image_size)) if value is not None}
    tree = nested({**(settings or {}), **own, **{f"method.{name}": value for name, value in method_settings.items()}})
    vault = vault_of(Path(out).expanduser(), key)
    with handed_over(data, labels) as text:
        config, source, tree = _configured(method, text, preset, strength, tree)
        check(config, source, vault, resume=resume, workers=workers)
        for notice in (left_out_notice(source), batch_notice(config, source, workers)):
            if notice:
                log.warning("%s", notice)
        if workers == 1:
            summary = _here(config, source, vault, resume, progress)
        else:
            summary = _in_workers(method, text, preset, tree, vault.path, workers, resume, key, progress)
    return CraftResult(
        path=vault.path,
        key=key,
        method=summary["method"],
        preset=summary["preset"],
        reduced=summary["reduced"],
        samples=summary["samples"],
        shards=summary["shards"],
        workers=summary["workers"],
        seconds=summary["craft_seconds"],
        peak_memory_mebibytes=summary["peak_memory_mebibytes"],
        already_complete=summary["already_complete"],
        batch_asked=summary["batch_asked"],
        batch_taken=summary["batch_taken"],
        steps=summary["steps"],
        samples_seen=summary["samples_seen"],
    )


def _configured(
    method: str, data: str, preset: Preset | None, strength: Strength | None, tree: Tree
) -> tuple[CraftConfig, Source, Tree]:
    """The configuration, its source, and the tree with the budget that `strength` stands for."""
    from hpcule.config.tree import merged, unknown
    from hpcule.craft.strength import STRENGTHS, epsilon
    from hpcule.craft.table import configure

    config = configure(method, data, preset=preset, file=tree, overrides=[])
    source = config.source(config.data)
    if strength is None:
        return config, source, tree
    if strength not in STRENGTHS:
        raise UsageError(unknown("strength", strength, STRENGTHS))
    tree = merged(tree, {"method": {"epsilon": epsilon(strength, method, source)}})
    return configure(method, data, preset=preset, file=tree, overrides=[]), source, tree


def _here(config: CraftConfig, source: Source, vault: Vault, resume: bool, progress: Progress | None) -> CraftDocument:
    from hpcule.craft.run import craft as run
    from hpcule.interface.process import note_progress, one_worker
    from hpcule.world.signals import StopFlag

    note = note_progress(progress)
    with one_worker(config.world, deterministic=config.deterministic) as world:
        return run(
            config,
            source,
            vault,
            world,
            StopFlag(signals=()),
            resume=resume,
            report=lambda step: note(step.stage, step.done, step.total),
        )


def _in_workers(
    method: str,
    data: str,
    preset: Preset | None,
    tree: Tree,
    out: Path,
    workers: int,
    resume: bool,
    key: str | Path | None,
    progress: Progress | None,
) -> CraftDocument:
    from hpcule.config.tree import dump_yaml
    from hpcule.interface.process import run_command

    with TemporaryDirectory(prefix="hpcule-") as folder:
        (file := Path(folder, "settings.yaml")).write_text(dump_yaml(tree))
        arguments = ["craft", method, f"--data={data}", f"--out={out}", f"--config={file}"]
        arguments += [f"--preset={preset}"] if preset else []
        arguments += ["--resume"] if resume else []
        arguments += [f"--key={key}"] if key is not None else []
        return cast("CraftDocument", run_command(arguments, workers, progress))
