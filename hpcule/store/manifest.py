"""The manifest: what a store holds, which run made it, and which files belong to it."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from typing import Any, TypeVar, cast

import numpy as np

from hpcule.config.errors import StoreError, UsageError
from hpcule.config.tree import Tree, build_config
from hpcule.data.opening import Opening
from hpcule.store.budget import SYMBOLS, Budget, Norm
from hpcule.store.files import to_json
from hpcule.store.seal import is_sealed
from hpcule.store.vault import MANIFEST, Vault
from hpcule.world.texture_recipe import TextureRecipe

SCHEMA = 1
SHARED = "shared.h5"

_CHOICES: Mapping[str, tuple[str | None, ...]] = {
    "norm": tuple(SYMBOLS),
    "unit": ("sample", "class", "cluster"),
    "applied_at": ("native", "working"),
    "compression": (None, "gzip", "lzf"),
}
_T = TypeVar("_T")
_MOST_ELEMENTS = 1 << 60
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class ShardEntry:
    """A shard file with the ids first .. first + count - 1; bytes and sha256 are None until it is written."""

    file: str
    first: int
    count: int
    bytes: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class SharedEntry:
    """The file with `count` perturbations that are shared by class or cluster."""

    file: str
    count: int
    bytes: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class SourceFacts:
    """Which samples the store was made for."""

    name: str
    kind: str
    split: str
    fingerprint: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything that identifies a craft run and its files; nothing depends on workers, host or time."""

    schema: int = SCHEMA
    hpcule: str
    """Version of the package that crafted it."""
    method: str
    config: Tree = field(hash=False)
    """Resolved configuration, without workers and launcher."""
    seed: int
    source: SourceFacts
    epsilon: float
    """Budget in levels of the sample's grid (or pixels for "l0"), in `norm`."""
    norm: Norm
    free_pixels: int = 0
    """Number of a sample's pixels that do not count against an L-infinity budget."""
    unit: str
    """What one perturbation is shared by."""
    groups: int
    """How many perturbations are shared; 0 for the unit "sample"."""
    n: int
    sample_shape: tuple[int, int, int]
    levels: int
    depth: int | None = None
    """Slices of volumes, which `sample_shape` has one below the other: [C, D * H, W]; None for images."""
    applied_at: str
    working_size: int | None
    reduced: bool
    """True where a preset smaller than the paper's was used."""
    compression: str | None
    shards: tuple[ShardEntry, ...]
    shared: SharedEntry | None
    texture: TextureRecipe | None = None
    """What perturbations are drawn from at other sizes than `sample_shape`; None: they are resized."""
    labelled: bool = True
    """Whether labels are part of what it was made for; where not, shards hold none and any may be added later."""
    index_sha256: str | None = None
    """SHA-256 of index.h5 once it is written."""
    complete: bool

    @cached_property
    def run_key(self) -> str:
        """32 hexadecimal digits that identify the run: equal for every number of workers, before and after."""
        document = asdict(self)
        del document["complete"], document["index_sha256"]
        for entry in (*document["shards"], document["shared"] or {}):
            entry.pop("bytes", None)
            entry.pop("sha256", None)
        document["epsilon"] = float(self.epsilon)
        if not self.free_pixels:
            # As before there were any: the key of a store does not change with the program.
            del document["free_pixels"]
        if self.texture is None:
            del document["texture"]
        if self.depth is None:
            del document["depth"]
        text = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    @cached_property
    def opening(self) -> Opening:
        """How the samples were opened; settings that an older version did not have yet are at their defaults.

        Raises:
            UsageError: the configuration was changed, and no such opening is valid.
        """
        names = {field.name for field in fields(Opening)}
        return build_config(Opening, {name: value for name, value in self.config.items() if name in names})

    @property
    def budget(self) -> Budget:
        """How far a sample may be changed."""
        return Budget(self.norm, self.epsilon, self.free_pixels)

    @property
    def files(self) -> list[ShardEntry | SharedEntry]:
        """The shards in order, then the file of shared perturbations if there is one."""
        return [*self.shards, *([self.shared] if self.shared else [])]

    @property
    def delta_dtype(self) -> np.dtype[Any]:
        """The smallest integers that hold the budget."""
        return self.budget.dtype(self.levels)


def plan_shards(n: int, shard_ids: Sequence[tuple[int, int]]) -> tuple[ShardEntry, ...]:
    """Name the shards of n samples; `shard_ids` holds (first id, count) of each, in order."""
    total = len(shard_ids)
    entries = tuple(ShardEntry(_shard_name(i, total), first, count) for i, (first, count) in enumerate(shard_ids))
    assert _range_error(entries, n) is None, _range_error(entries, n)
    return entries


def read_manifest(vault: Vault) -> Manifest:
    """Read and check the manifest of a store.

    Raises:
        StoreError: there is no store, or its manifest is not JSON, of a newer schema, incomplete or contradictory; or
            the key is another store's, missing, or not needed.
    """
    path = vault.path / MANIFEST
    try:
        if vault.key is not None and not is_sealed(path):
            raise StoreError(f"{vault.path} is not encrypted: leave --key out")
        document = vault.read_json(MANIFEST)
        if type(document.get("schema")) is int and document["schema"] > SCHEMA:
            raise StoreError(
                f"{vault.path} has schema {document['schema']}, written by a newer hpcule; "
                f"this one reads schema {SCHEMA}: update hpcule"
            )
        manifest = parse_manifest(document)
        _check(manifest)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise StoreError(
            f"no store in {vault.path}: {MANIFEST} is not there; name the folder that `hpcule craft --out` wrote"
        ) from error
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, OverflowError) as error:
        reason = "not JSON" if isinstance(error, json.JSONDecodeError | UnicodeDecodeError) else str(error)
        raise StoreError(f"{path} is damaged ({reason}): restore it from a copy, or craft the store again") from error
    return manifest


def write_manifest(vault: Vault, manifest: Manifest) -> None:
    """Write manifest.json atomically, readable by its owner only, and encrypted where there is a key."""
    _check(manifest)
    vault.write(MANIFEST, to_json(asdict(manifest)))


def _shard_name(index: int, total: int) -> str:
    return f"shards/{index:05d}-of-{total:05d}.h5"


def parse_manifest(document: Tree) -> Manifest:
    """Build a manifest from JSON of the right types; unknown fields are ignored."""
    source = _typed(document, "source", dict)
    shape = _typed(document, "sample_shape", list)
    shared = _optional(document, "shared", dict)
    texture = _optional({"texture": None, **document}, "texture", dict)
    if len(shape) != 3 or any(type(size) is not int for size in shape):
        raise ValueError(f"sample_shape is {str(shape)[:40]}, not three integers")
    return Manifest(
        schema=_typed(document, "schema", int),
        hpcule=_typed(document, "hpcule", str),
        method=_typed(document, "method", str),
        config=_typed(document, "config", dict),
        seed=_typed(document, "seed", int),
        source=SourceFacts(*(_typed(source, name, str) for name in ("name", "kind", "split", "fingerprint"))),
        epsilon=_typed(document, "epsilon", float),
        norm=cast(Norm, _typed(document, "norm", str)),
        free_pixels=_typed({"free_pixels": 0, **document}, "free_pixels", int),
        unit=_typed(document, "unit", str),
        groups=_typed(document, "groups", int),
        n=_typed(document, "n", int),
        sample_shape=(shape[0], shape[1], shape[2]),
        levels=_typed(document, "levels", int),
        depth=_optional({"depth": None, **document}, "depth", int),
        applied_at=_typed(document, "applied_at", str),
        working_size=_optional(document, "working_size", int),
        reduced=_typed(document, "reduced", bool),
        compression=_optional(document, "compression", str),
        shards=tuple(_shard_entry(entry) for entry in _typed(document, "shards", list)),
        shared=_shared_entry(shared) if shared is not None else None,
        texture=_texture(texture) if texture is not None else None,
        labelled=_typed(document, "labelled", bool),
        index_sha256=_optional({"index_sha256": None, **document}, "index_sha256", str),
        complete=_typed(document, "complete", bool),
    )


def _shard_entry(entry: object) -> ShardEntry:
    return ShardEntry(
        _typed(entry, "file", str),
        _typed(entry, "first", int),
        _typed(entry, "count", int),
        _optional(entry, "bytes", int),
        _optional(entry, "sha256", str),
    )


def _shared_entry(entry: object) -> SharedEntry:
    return SharedEntry(
        _typed(entry, "file", str),
        _typed(entry, "count", int),
        _optional(entry, "bytes", int),
        _optional(entry, "sha256", str),
    )


def _texture(recipe: object) -> TextureRecipe:
    return TextureRecipe(
        spectra=_typed(recipe, "spectra", int),
        sectors=_typed(recipe, "sectors", int),
        shortest=_optional(recipe, "shortest", float),
        longest=_optional(recipe, "longest", float),
        saturation=_typed(recipe, "saturation", float),
        colour=_typed(recipe, "colour", bool),
        flat=_typed(recipe, "flat", float),
    )


def _typed(document: object, name: str, kind: type[_T]) -> _T:
    if not isinstance(document, dict) or name not in document:
        raise ValueError(f"the field {name} is missing")
    value = float(document[name]) if kind is float and type(document[name]) is int else document[name]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{name} is {str(value)[:40]!r}, not of type {kind.__name__}")
    return value


def _optional(document: object, name: str, kind: type[_T]) -> _T | None:
    absent = isinstance(document, dict) and name in document and document[name] is None
    return None if absent else _typed(document, name, kind)


def _check(manifest: Manifest) -> None:
    """Raise ValueError where fields contradict each other or a file lies outside the store."""
    if manifest.schema != SCHEMA:
        raise ValueError(f"schema is {manifest.schema}, not {SCHEMA}")
    if not isinstance(manifest.config.get("method", {}), dict):
        raise ValueError("config.method is no section")
    for name, valid in _CHOICES.items():
        if getattr(manifest, name) not in valid:
            raise ValueError(f"{name} is {getattr(manifest, name)!r}, not one of {valid}")
    if not (math.isfinite(manifest.epsilon) and 0 < manifest.epsilon <= np.iinfo(np.int32).max):
        raise ValueError(f"epsilon is {manifest.epsilon}")
    if not 1 <= manifest.levels <= 65535:
        raise ValueError(f"levels is {manifest.levels}")
    if min(manifest.n, *manifest.sample_shape) < 1 or manifest.n * math.prod(manifest.sample_shape) > _MOST_ELEMENTS:
        raise ValueError(f"{manifest.n} samples of shape {manifest.sample_shape} are impossible")
    height, width = manifest.sample_shape[1:]
    if manifest.depth is not None and (manifest.depth < 1 or height % manifest.depth):
        raise ValueError(f"depth is {manifest.depth} and sample_shape {manifest.sample_shape}")
    if not 0 <= manifest.free_pixels < height * width or (manifest.free_pixels and manifest.norm != "linf"):
        raise ValueError(f"free_pixels is {manifest.free_pixels} and norm {manifest.norm}")
    if (manifest.working_size is not None) != (manifest.applied_at == "working"):
        raise ValueError(f"applied_at is {manifest.applied_at} and working_size {manifest.working_size}")
    try:
        opened_at = manifest.opening.working_size
    except UsageError as error:
        raise ValueError(str(error)) from None
    if opened_at != manifest.working_size:
        raise ValueError(f"working_size is {manifest.working_size}, and its configuration says {opened_at}")
    if (manifest.unit == "sample") != (manifest.groups == 0) or manifest.groups < 0:
        raise ValueError(f"unit is {manifest.unit} and groups {manifest.groups}")
    if manifest.texture is not None and (manifest.unit, manifest.norm) != ("sample", "linf"):
        raise ValueError(f"there is a texture, unit is {manifest.unit} and norm {manifest.norm}")
    planned = replace(manifest.shared, bytes=None, sha256=None) if manifest.shared else None
    if planned != (SharedEntry(SHARED, manifest.groups) if manifest.groups else None):
        raise ValueError(f"shared does not name {SHARED} with {manifest.groups} perturbations")
    if (reason := _range_error(manifest.shards, manifest.n)) is not None:
        raise ValueError(reason)
    for entry in manifest.files if manifest.complete else ():
        if entry.bytes is None or entry.sha256 is None or not _SHA256.fullmatch(entry.sha256):
            raise ValueError(f"size or SHA-256 of {entry.file} is missing")


def _range_error(shards: Sequence[ShardEntry], n: int) -> str | None:
    """Say why the shards do not hold each of the ids 0..n-1 once, or return None."""
    following = 0
    for index, entry in enumerate(shards):
        if entry.file != _shard_name(index, len(shards)):
            return f"shard {index} is in {entry.file[:80]!r}, not in {_shard_name(index, len(shards))}"
        if entry.first != following or entry.count < 1:
            return f"{entry.file} holds {entry.count} ids from {entry.first} on, where {following} is next"
        following += entry.count
    return None if following == n else f"the shards hold {following} samples, not {n}"
