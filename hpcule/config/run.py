"""Settings that several configurations have in common: of methods, stores and the machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, Self, get_args

from hpcule.config.errors import UsageError
from hpcule.config.ranges import check_ranges, keep_ranges, setting

BUDGETS = "1 to 127 levels of an 8-bit grid (8 means 8/255), 1 to 32767 of a 16-bit one"
LENGTHS = "at least 1 level and at most half of the distance from black to white (255 means 1.0)"
Preset = Literal["paper", "small", "smoke"]


@dataclass(frozen=True, kw_only=True)
class MethodConfig:
    """Settings of every method; each method extends them in its own module."""

    removed: ClassVar[tuple[str, ...]] = ()
    """Settings of earlier versions that had no effect and are gone."""
    refused: ClassVar[Mapping[str, str]] = {
        "task": "this method crafts for one label: `hpcule settings NAME` shows which have this setting"
    }
    """Settings that other methods have and this one cannot have, and why."""
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
class LocalConfig(MethodConfig):
    """Settings of a method that may change an image less where that is seen most."""

    flat: float = setting(1.0, at_least=0, at_most=1)
    """Share of the budget where an image is flat. It rises with local contrast, to all of it where the standard
    deviation of brightness around a pixel reaches the budget; 1 is the whole budget everywhere."""


@dataclass(frozen=True, kw_only=True)
class BoundedConfig(MethodConfig):
    """Settings of a method that changes no value by more than its budget (L-infinity)."""

    epsilon: float = setting(8.0, at_least=1, at_most=32767, words=BUDGETS)
    """Budget in levels of the sample's own grid: 8 means 8/255 for 8-bit images."""


@dataclass(frozen=True, kw_only=True)
class LengthConfig(LocalConfig):
    """Settings of a method that bounds the Euclidean length of the change (L2)."""

    epsilon: float | None = setting(None, at_least=1, words=LENGTHS)
    """Budget in levels; None: the method's root mean square a value, whatever the size of the samples."""


CraftTask = Literal["label", "labels", "segmentation", "rotation", "colour", "edges"]
BY_CLASS: tuple[CraftTask, ...] = ("label", "labels", "segmentation")
"""Tasks that ask for classes, of samples or of pixels."""
EVERY: tuple[CraftTask, ...] = get_args(CraftTask)


@dataclass(frozen=True)
class CraftTasks:
    """What a perturbation is crafted for: one task, or several at once, joined with `+`."""

    names: tuple[CraftTask, ...] = ("label",)

    @classmethod
    def parse(cls, value: object) -> Self:
        """Read one name, names joined with `+`, or a list of names.

        Raises:
            UsageError: there is no such task, or it is named twice.
        """
        listed = value.split("+") if isinstance(value, str) else value
        if not isinstance(listed, list | tuple) or not listed or not set(listed) <= set(EVERY):
            raise UsageError(f"{value}: valid are {', '.join(EVERY)}, and several joined with +")
        if len(set(listed)) < len(listed):
            raise UsageError(f"{value}: each task once")
        return cls(tuple(listed))

    def written(self) -> str:
        """The text that `parse` reads."""
        return "+".join(self.names)

    @property
    def one_label(self) -> bool:
        """Whether it is crafted for the classes of samples alone."""
        return self.names == ("label",)


ONE_LABEL = CraftTasks()


@dataclass(frozen=True, kw_only=True)
class TaskConfig(MethodConfig):
    """Settings of a method that crafts for several tasks."""

    refused: ClassVar[Mapping[str, str]] = {}
    possible_task: ClassVar[tuple[CraftTask, ...]] = BY_CLASS
    """Tasks that the method can craft for."""
    task: CraftTasks = ONE_LABEL
    """What the perturbation goes by: label is the class of a sample, labels are all that hold, segmentation is the
    class of each pixel in the mask; several are joined with +."""

    def __post_init__(self) -> None:
        """Check that the method can craft for the tasks."""
        super().__post_init__()
        if impossible := [name for name in self.task.names if name not in self.possible_task]:
            raise ValueError(
                f"task={self.task.written()}: {self.name} cannot craft for {', '.join(impossible)}: valid are "
                f"{', '.join(self.possible_task)}"
            )


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
    """Least time between two checkpoints; where one takes long, the next comes later, so that they take at most a
    twentieth of the time."""
    resident_mebibytes: int = setting(1024, at_least=0)
    """Samples stay in memory, on a GPU where there is one, up to this size a worker; beyond it they are read again each
    time."""

    def __post_init__(self) -> None:
        """Check ranges."""
        check_ranges(self)
