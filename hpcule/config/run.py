"""Settings that several configurations have in common: of methods, stores and the machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, Self

from hpcule.config.ranges import check_ranges, keep_ranges, setting

BUDGETS = "1 to 127 levels of an 8-bit grid (8 means 8/255), 1 to 32767 of a 16-bit one"
LENGTHS = "at least 1 level and at most half of the distance from black to white (255 means 1.0)"
Preset = Literal["paper", "small", "smoke"]


@dataclass(frozen=True, kw_only=True)
class MethodConfig:
    """Settings of every method; each method extends them in its own module."""

    removed: ClassVar[tuple[str, ...]] = ()
    """Settings of earlier versions that had no effect and are gone."""
    name: str
    """Name of the method."""

    def __init_subclass__(cls) -> None:
        """Keep the ranges of settings whose defaults a subclass changes."""
        super().__init_subclass__()
        keep_ranges(cls)

    def __post_init__(self) -> None:
        """Check ranges; a subclass adds the rules that connect several settings."""
        check_ranges(self)

    def resolved(self) -> Self:
        """The same settings with every default that depends on other settings written out."""
        return self


@dataclass(frozen=True, kw_only=True)
class BoundedConfig(MethodConfig):
    """Settings of a method that changes no value by more than its budget (L-infinity)."""

    epsilon: float = setting(8.0, at_least=1, at_most=32767, words=BUDGETS)
    """Budget in levels of the sample's own grid: 8 means 8/255 for 8-bit images."""


@dataclass(frozen=True, kw_only=True)
class LengthConfig(MethodConfig):
    """Settings of a method that bounds the Euclidean length of the change (L2)."""

    epsilon: float | None = setting(None, at_least=1, words=LENGTHS)
    """Budget in levels; None: the method's root mean square a value, whatever the size of the samples."""


CraftTask = Literal["label", "labels", "segmentation"]
"""Tasks that a method may craft for."""


@dataclass(frozen=True, kw_only=True)
class TaskConfig(MethodConfig):
    """Settings of a method that crafts for several tasks."""

    task: CraftTask = "label"
    """What the perturbation goes by: label is the class of a sample; with labels, those of all labels that hold add up;
    with segmentation, each pixel gets that of its own class in the mask."""


@dataclass(frozen=True, kw_only=True)
class StoreConfig:
    """How the perturbation is laid out on disk."""

    shards: int | None = None
    """V, the number of shards; part of the result. None: max(1, min(N // 32, max(64, bytes / 256 MiB)))."""
    compression: Literal["gzip", "lzf"] | None = None
    """HDF5 filter of the shards."""


@dataclass(frozen=True, kw_only=True)
class WorldConfig:
    """How the run uses the machine; never part of the result."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int | None = setting(None, at_least=1)
    """Threads a worker; None: 1 where the run is deterministic, else OMP_NUM_THREADS, else the node's cores divided by
    its workers."""
    timeout_seconds: float = setting(1800.0, above=0)
    """How long a collective may wait for a rank that does not answer."""
    checkpoint_seconds: float = setting(120.0, at_least=0)
    """Least time between two checkpoints."""
    resident_mebibytes: int = setting(1024, at_least=0)
    """Samples stay in memory, on a GPU where there is one, up to this size a worker; beyond it they are read again each
    time."""

    def __post_init__(self) -> None:
        """Check ranges."""
        check_ranges(self)
