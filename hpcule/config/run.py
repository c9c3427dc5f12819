"""Settings that several configurations have in common: of methods, stores and the machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

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
