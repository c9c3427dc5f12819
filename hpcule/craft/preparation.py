"""What a run will write, decided and compared with what is there before anything is computed."""

from __future__ import annotations

import math
from dataclasses import astuple
from pathlib import Path
from typing import cast

import numpy as np

from hpcule.config.errors import DataError, StoreError, UsageError
from hpcule.config.run import BUDGETS, LENGTHS, BoundedConfig, LengthConfig
from hpcule.config.tree import Tree, flat, to_tree
from hpcule.config.version import __version__
from hpcule.craft.config import CraftConfig
from hpcule.craft.table import defaults, find, usable
from hpcule.craft.work import Walk
from hpcule.data.find import data_path
from hpcule.data.partition import Partition, partition
from hpcule.data.schedule import check_batch, small_notice
from hpcule.data.source import Source
from hpcule.data.tiles import Tiles
from hpcule.store.files import leftover_of, sha256_file
from hpcule.store.manifest import (
    SHARED,
    Manifest,
    SharedEntry,
    SourceFacts,
    parse_manifest,
    plan_shards,
    read_manifest,
)
from hpcule.store.staged import require_apart
from hpcule.store.vault import MANIFEST, Vault
from hpcule.store.verify import Damage, file_damages, verify
from hpcule.store.write import OWN_FILES, RUN, SHARDS
from hpcule.tasks.table import task_of
from hpcule.world.group import World


def check(config: CraftConfig, source: Source, vault: Vault, *, resume: bool, workers: int) -> None:
    """Everything that can be refused before any process starts.

    Raises:
        DataError: the method needs labels and the source has none, or a single class.
        UsageError: a batch larger than the source, more workers than shards, a store folder that is not empty without
            `resume`, or one among the files of the data.
        StoreError: the store that is there cannot be read, with this key or without one.
    """
    check_task(config, source)
    check_craft_batch(config, len(source))
    cut_into_shards(config, source, workers)
    store = vault.path
    if source.file_name(0) is not None:
        # Its files would be taken for some of the collection's.
        require_apart(store, {"the data": data_path(config.data)})
    if _has_content(store):
        if not vault.begun:
            raise UsageError(f"{store} is not empty and holds no store: name another folder")
        if not resume:
            raise UsageError(f"{store} is not empty: continue it with --resume, or name another folder")
        read_manifest(vault)


def check_task(config: CraftConfig, source: Source) -> None:
    """Whether the method can work on the source.

    Raises:
        DataError: the method is for images and these are recordings or the other way round; it needs labels, or masks,
            and the source has none, or a single class.
        UsageError: a budget beyond the source's grid, or tiles, DICOM or NIfTI files for a method that bounds whole
            images.
    """
    facts = find(config.method.name).facts
    kind = "images" if source.rate is None else "audio"
    if facts.data != kind:
        others = ", ".join(name for name, method in usable()[0].items() if method.facts.data == kind)
        raise DataError(f"{config.method.name} is made for {facts.data} and {source.name} is {kind}: take {others}")
    method = find(config.method.name)
    if source.depth is not None and not method.takes_volumes(config.method):
        raise DataError(
            f"{source.name} holds volumes, and {config.method.name} with method.task="
            f"{method.tasks(config.method).written()} does not craft for them: take classwise or texture, or em with "
            "method.task=segmentation"
        )
    tasks = method.tasks(config.method).names
    for name in tasks:
        if name != "label":
            task_of(name, source)
    if "label" in tasks and method.needs_labels(config.method):
        _require_classes(config, source)
    if isinstance(config.method, BoundedConfig) and config.method.epsilon > source.levels // 2:
        raise UsageError(f"method.epsilon={config.method.epsilon:g}: valid are {BUDGETS}")
    budget = find(config.method.name).budget(config.method, source.shape, source.levels)
    if not budget.by_value:
        of_images = f"{config.method.name} has a budget of whole images, not of values"
        if isinstance(source, Tiles):
            raise UsageError(f"tile_size: {of_images}: leave it out")
        if source.kind in ("dicom", "nifti"):
            raise UsageError(f"{of_images}, which cannot be published as {source.kind}: choose another method")
    longest = source.levels * math.sqrt(math.prod(source.shape)) / 2
    if isinstance(config.method, LengthConfig) and (config.method.epsilon or 0) > longest:
        raise UsageError(f"method.epsilon={config.method.epsilon:g}: valid are {LENGTHS}")


def _require_classes(config: CraftConfig, source: Source) -> None:
    """Refuse samples without labels, or with a single class, for a method that needs some."""
    if source.labels is None:
        clusters = ", method.clusters" if hasattr(config.method, "clusters") else ""
        raise DataError(
            f"{config.method.name} needs labels and {source.name} has none: use class folders{clusters}, or uc"
        )
    if len(np.unique(source.labels)) < 2:
        raise DataError(f"{source.name} has a single class, which leaves {config.method.name} nothing to protect")


def check_craft_batch(config: CraftConfig, samples: int) -> None:
    """Refuse a batch that is not the preset's and is larger than the data; raises UsageError.

    Of fewer samples than the preset's batch a step takes all, and `batch_notice` says so.
    """
    preset = defaults(find(config.method.name), config.preset, to_tree(config.method))
    own = preset.get("batch", getattr(type(config.method), "batch", 1))
    check_batch("method.batch", getattr(config.method, "batch", 1), samples, cast("int", own))


def batch_notice(config: CraftConfig, source: Source, workers: int) -> str | None:
    """What a user should know of the batches before they are taken, if anything: that a step takes fewer samples than a
    preset says, or leaves workers without work."""
    method, samples = config.method, len(source)
    batch, ghost = getattr(method, "batch", 1), getattr(method, "ghost", None)
    found = [small_notice("method.batch", batch, samples)]
    if ghost is not None and find(method.name).unit(method) != "cluster":
        walk = Walk.of(samples, cut_into_shards(config, source, workers).count, ghost, batch)
        if walk.ghosts_a_batch < workers:
            found.append(
                f"at most {walk.ghosts_a_batch} of {workers} workers have work in a training step: a batch of "
                f"{min(batch, samples)} has that many ghosts"
            )
    return "; ".join(filter(None, found)) or None


def cut_into_shards(config: CraftConfig, source: Source, workers: int) -> Partition:
    """The partition of the source; raises UsageError for more workers than shards."""
    channels, height, width = source.shape
    return partition(len(source), channels * height * width * source.dtype.itemsize, config.store.shards, workers)


def plan(config: CraftConfig, source: Source, cut: Partition, fingerprint: str, bf16: bool) -> Manifest:
    """The manifest of a run before its first shard: all that identifies it, and the shards it will have."""
    method = find(config.method.name)
    settings = to_tree(config)
    # The machine and the place of the data are not part of the result.
    del settings["world"], settings["data"]
    settings["precision"] = "bf16" if bf16 else "fp32"
    own = settings["method"]
    if checkpoint := own.get("checkpoint"):
        own["checkpoint"] = _sha256(checkpoint)
    if weights := own.get("encoder_weights"):
        own["encoder_weights"] = [file and _sha256(file) for file in weights]
    groups = method.groups(config.method, source)
    budget = method.budget(config.method, source.shape, source.levels)
    assert config.seed is not None
    return Manifest(
        hpcule=__version__,
        method=config.method.name,
        config=settings,
        seed=config.seed,
        source=SourceFacts(source.name, source.kind, source.split, fingerprint),
        epsilon=budget.epsilon,
        norm=budget.norm,
        free_pixels=budget.free_pixels,
        unit=method.unit(config.method),
        groups=groups,
        n=len(source),
        sample_shape=source.shape,
        levels=source.levels,
        depth=source.depth,
        applied_at="native" if config.working_size is None else "working",
        working_size=config.working_size,
        reduced=config.preset != "paper",
        compression=config.store.compression,
        shards=plan_shards(len(source), [cut.range(shard) for shard in range(cut.count)]),
        shared=SharedEntry(SHARED, groups) if groups else None,
        texture=method.texture(config.method, source),
        labelled=method.needs_labels(config.method),
        complete=False,
    )


def _sha256(checkpoint: str) -> str:
    try:
        return f"sha256:{sha256_file(Path(checkpoint))}"
    except OSError as error:
        raise DataError(f"{checkpoint}: cannot be read: {error.strerror}") from None


def is_complete(vault: Vault, planned: Manifest, world: World) -> bool:
    """Compare with the store that is there, if any; each rank checks the files of its own shards. A collective.

    Raises:
        StoreError: it belongs to another run, or is complete but damaged.
        PeerLostError: on all ranks but the first, for the same reasons.
    """
    document = world.lead(lambda: _complete_manifest(vault, planned))
    if document is None:
        return False
    manifest = parse_manifest(document)
    # The one file besides the shards is rank 0's.
    own = [*manifest.shards[world.rank :: world.size], *(manifest.files[len(manifest.shards) :] if world.leads else ())]
    found = world.collect([astuple(damage) for damage in file_damages(vault, manifest, own)])

    def check_rest() -> None:
        damages = sorted((Damage(*damage) for part in found or () for damage in part), key=lambda damage: damage.file)
        if problems := verify(vault, files=damages):
            raise StoreError(f"{vault.path} is complete but damaged: {problems[0]}")

    world.lead(check_rest)
    return True


def _complete_manifest(vault: Vault, planned: Manifest) -> Tree | None:
    """The manifest of a complete store, None where there is no such; raises StoreError as `is_complete`."""
    if not vault.begun:
        return None
    found = read_manifest(vault)
    if found.run_key != planned.run_key:
        raise StoreError(f"{vault.path} belongs to another run ({_difference(found, planned)}): name another folder")
    return vault.read_json(MANIFEST) if found.complete else None


def _difference(found: Manifest, planned: Manifest) -> str:
    seen, wanted = flat(found.config), flat(planned.config)
    for name in wanted:
        if name in seen and seen[name] != wanted[name]:
            return f"its {name} is {seen[name]}, now {wanted[name]}"
    if others := sorted(seen.keys() ^ wanted.keys()):
        version = f"hpcule {found.hpcule}, whose settings differ in {', '.join(others[:3])}"
        return f"begun by another version, {version}; finish it with that one"
    if found.source.fingerprint != planned.source.fingerprint:
        return "it was made for other samples or labels"
    return (
        f"its hpcule is {found.hpcule}, now {planned.hpcule}" if found.hpcule != planned.hpcule else "its plan differs"
    )


def _has_content(store: Path) -> bool:
    """Whether a folder holds more than what an interrupted start leaves behind."""
    if store.is_file():
        raise UsageError(f"{store} is a file: name a folder for the store")
    return store.is_dir() and any(not _is_of_a_start(entry) for entry in store.iterdir())


def _is_of_a_start(entry: Path) -> bool:
    """Whether something in a store may be there before its manifest."""
    shards = entry.name == SHARDS and entry.is_dir() and not any(entry.iterdir())
    return entry.name == RUN or shards or leftover_of(entry) in OWN_FILES
