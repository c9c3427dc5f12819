"""The settings of a craft run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, Self

BUDGETS = "valid are 1 to 127 levels of an 8-bit grid (8 means 8/255), 1 to 32767 of a 16-bit one"
LENGTHS = "valid are at least 1 level and at most half of the distance from black to white (255 means 1.0)"
Preset = Literal["paper", "small", "smoke"]


@dataclass(frozen=True, kw_only=True)
class MethodConfig:
    """What every method has; each method extends it beside its own code."""

    name: str

    def resolved(self) -> Self:
        """The same settings with every default that depends on other settings written out."""
        return self


@dataclass(frozen=True, kw_only=True)
class BoundedConfig(MethodConfig):
    """Of a method that changes no value by more than its budget (L-infinity)."""

    epsilon: float = 8.0
    """Budget in levels of the sample's own grid: 8 means 8/255 for 8-bit images."""

    def __post_init__(self) -> None:
        """Check the budget's range; the samples' grid may narrow it further."""
        if not 1 <= self.epsilon <= 32767:
            raise ValueError(f"epsilon={self.epsilon:g}: {BUDGETS}")


@dataclass(frozen=True, kw_only=True)
class LengthConfig(MethodConfig):
    """Of a method that bounds the Euclidean length of the change (L2)."""

    epsilon: float | None = None
    """Budget in levels; None: the method's root mean square a value, whatever the size of the samples."""

    def __post_init__(self) -> None:
        """Check the budget's range; the samples' size may narrow it further."""
        if self.epsilon is not None and self.epsilon < 1:
            raise ValueError(f"epsilon={self.epsilon:g}: {LENGTHS}")


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
    threads: int | None = None
    """Threads a worker; None: 1 where the run is deterministic, else OMP_NUM_THREADS, else the node's cores divided by
    its workers."""
    timeout_seconds: float = 1800.0
    """How long a collective may wait for a rank that does not answer."""
    checkpoint_seconds: float = 120.0
    """Least time between two checkpoints."""
    resident_mebibytes: int = 1024
    """Samples stay in memory up to this size a worker; beyond it they are read again each time."""

    def __post_init__(self) -> None:
        """Check ranges."""
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"threads={self.threads}: at least 1")
        if self.timeout_seconds <= 0:
            raise ValueError(f"timeout_seconds={self.timeout_seconds:g}: must be above 0")


@dataclass(frozen=True, kw_only=True)
class CraftConfig:
    """One craft run: one file of this decides the result, whoever runs it and on however many workers."""

    data: str
    """DATA: a path or a name, with an optional `:SPLIT`."""
    method: MethodConfig
    preset: Preset = "paper"
    """Where the method's defaults come from; results of small and smoke are marked `reduced`."""
    seed: int | None = None
    """None: 0 for a method with a surrogate; one without has no other secret, and draws its seed from the operating
    system, or takes it from the store that is resumed."""
    deterministic: bool = False
    """The same bytes for every number of workers, launcher, kill and resume."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """bf16 is autocast; auto takes it where the device has fast instructions for it."""
    image_size: int | None = None
    """Resize every sample to this height and width first, and publish at that size."""
    tile_size: int | None = None
    """Cut every image into tiles of this height and width, each a sample, and publish whole images as they were."""
    clip_length: int | None = None
    """Cut and pad every recording to so many samples first, and publish at most those; None: as long as the longest."""
    skip_unreadable: bool = False
    """Leave out files that cannot be decoded instead of failing."""
    budget_unit: Literal["window", "stored"] = "window"
    """What a level of the budget is in DICOM and NIfTI: 1/255 of the display window, or one stored grey level."""
    store: StoreConfig = field(default_factory=StoreConfig)
    world: WorldConfig = field(default_factory=WorldConfig)

    def __post_init__(self) -> None:
        """Check ranges."""
        if self.seed is not None and not 0 <= self.seed < 2**63:
            raise ValueError(f"seed={self.seed}: valid are 0 to 2^63 - 1")
        if self.image_size is not None and not 4 <= self.image_size <= 4096:
            raise ValueError(f"image_size={self.image_size}: valid are 4 to 4096")
        if self.clip_length is not None and not 1 <= self.clip_length <= 2**31:
            raise ValueError(f"clip_length={self.clip_length}: valid are 1 to 2^31")
        if self.tile_size is not None and not 4 <= self.tile_size <= 4096:
            raise ValueError(f"tile_size={self.tile_size}: valid are 4 to 4096")
        given = [name for name in ("image_size", "tile_size", "clip_length") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(
                f"{' and '.join(given)}: image_size and tile_size are for images, clip_length for recordings; "
                "give one of them"
            )

    @property
    def working_size(self) -> int | None:
        """What samples are made as large, or as long, as."""
        return self.image_size or self.tile_size or self.clip_length

    @property
    def opening(self) -> dict[str, Any]:
        """What `open_source` is told besides the data."""
        size = None if self.tile_size else self.working_size
        return {"image_size": size, "tile_size": self.tile_size, "skip_unreadable": self.skip_unreadable}
