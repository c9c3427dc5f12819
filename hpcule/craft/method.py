"""The contract of a method: what it gets, what it yields, and what it may ask."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Generic, Literal, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from torch import Tensor

from hpcule.config.errors import HpculeError
from hpcule.config.run import BY_CLASS, ONE_LABEL, BoundedConfig, CraftTasks, MethodConfig, TaskConfig
from hpcule.craft.cache import Cache
from hpcule.craft.work import Extent, Work, tile_rows
from hpcule.data.annotations import Masks
from hpcule.data.partition import Partition
from hpcule.data.reader import Reader
from hpcule.data.schedule import Ghost
from hpcule.data.source import Ids, Labels, Source
from hpcule.store.budget import Budget
from hpcule.store.checkpoint import PartState
from hpcule.tasks.crafting import crafting_task
from hpcule.tasks.task import Task
from hpcule.world.gradient_norms import GradientNorms
from hpcule.world.group import World
from hpcule.world.texture_recipe import TextureRecipe

Config = TypeVar("Config", bound=MethodConfig)
Settings = Mapping[str, object]
"""Settings of a method by name."""
Unit = Literal["sample", "class", "cluster"]
"""What one delta is shared by."""


@dataclass(frozen=True)
class Facts:
    """What the survey of unlearnable data asks of every method, its paper and its price."""

    title: str
    data: str
    task: str
    intent: str
    needs_labels: bool
    bounded: bool
    needs_surrogate: bool
    claimed: str
    """What its authors report that it withstands; what hpcule has measured is in `hpcule.craft.measured`."""
    paper: str
    cost: str
    """Passes (one forward and one backward) through the surrogate for each sample, paper preset."""
    weaknesses: str
    needs_checkpoint: bool = False
    too_short: tuple[str, ...] = ()
    """Presets that cut training down so far that their results say nothing of the method."""


@dataclass(frozen=True)
class Problem:
    """What a method gets to work on."""

    source: Source
    partition: Partition
    reader: Reader
    world: World
    seed: int
    exact: bool
    """Reduce in an order that does not know the number of ranks."""
    autocast: bool
    """Run networks in bf16."""
    done: frozenset[int] = frozenset()
    """Shards that an earlier, interrupted run has finished."""
    cache: Cache = field(default_factory=Cache)
    """Results that other crafts on the same samples share."""
    crafted_for: CraftTasks = ONE_LABEL
    """What the perturbation goes by."""

    @property
    def owned(self) -> list[int]:
        """The shards of this rank."""
        return self.partition.owned(self.world.rank, self.world.size)

    def mine(self, ghosts: Sequence[Ghost]) -> list[Ghost]:
        """Return the ghosts of this rank's shards."""
        return [ghost for ghost in ghosts if ghost.shard % self.world.size == self.world.rank]

    def expect(self, ghosts: Sequence[Ghost]) -> None:
        """Read this rank's part of the next batch while it works on this one, where it is not in memory."""
        for ghost in self.mine(ghosts):
            self.reader.expect(ghost)

    @property
    def rounds(self) -> int:
        """How many shards the busiest rank owns."""
        return self.partition.rounds(self.world.size)

    def classes(self, ids: Ids | slice) -> Labels:
        """Labels int64 [n]; the driver has checked that a method that needs them gets them."""
        return self.source.classes(ids)

    @cached_property
    def task(self) -> Task:
        """What it is crafted for, all tasks together: how many classes there are, and what a surrogate's loss is; the
        driver has checked that the samples can have them."""
        return crafting_task(self.crafted_for, self.source)

    def targets(self, ids: Ids) -> Tensor:
        """What the task knows of samples [n, ...], on the device: class numbers int64 [n] where it is one label."""
        return self.task.targets(self.source, ids).to(self.world.device)

    def label_values(self, ids: Ids) -> npt.NDArray[np.int8]:
        """Several labels int8 [n, L] of samples, where the driver has checked that there are."""
        assert self.source.label_matrix is not None
        return self.source.label_matrix.values[ids]

    def masks(self, ids: Ids) -> Masks:
        """Masks uint8 [n, H, W] of samples, where the driver has checked that there are."""
        assert self.source.masks is not None
        return self.source.masks.read(ids)

    def tiles(self, ids: Ids, rows: int | None = None) -> list[slice]:
        """Slices that cut a shard's ids into parts of at most `rows`; None: `tile_rows` of the device."""
        rows = rows or tile_rows(self.world.device.type)
        return [slice(start, start + rows) for start in range(0, len(ids), rows)]

    def unit_interval(self, samples: Tensor) -> Tensor:
        """Integer samples as float32 in [0, 1] on the device."""
        return samples.to(self.world.device).float().div_(self.source.levels)


@dataclass(frozen=True)
class Step:
    """A safe point: the run may be saved or stopped here.

    All ranks must yield the same number of events between two collectives over the whole world.
    """

    stage: str
    done: int
    total: int
    figures: Mapping[str, float] = field(default_factory=dict)
    norms: GradientNorms | None = None
    """Norms of the gradients of this step, for the journal."""
    batches: Sequence[int] = ()
    """Numbers of samples of the batches that a network, or a delta shared by clusters, was trained on in this step."""


@dataclass(frozen=True)
class ShardResult:
    """The answer for one shard: delta in levels [n, C, H, W], or group [n] into the shared deltas."""

    shard: int
    delta: npt.NDArray[np.integer[Any]] | None = None
    group: npt.NDArray[np.int64] | None = None
    spectrum: npt.NDArray[np.int64] | None = None
    """The row [n] of each sample in the table of spectra, where `Method.texture` says that there is one."""


@dataclass(frozen=True)
class SharedResult:
    """The shared deltas in levels [p, C, H, W]; rank 0's is written."""

    delta: npt.NDArray[np.integer[Any]]


Event = Step | ShardResult | SharedResult


@dataclass(frozen=True)
class State:
    """What a checkpoint keeps: `shared` from rank 0, and parts that one rank each has ("shard-00003")."""

    shared: Mapping[str, object]
    parts: Mapping[str, Mapping[str, object]] = field(default_factory=dict)


class Saved(Protocol):
    """A checkpoint to read from; any rank may load any part."""

    @property
    def names(self) -> tuple[str, ...]:
        """The parts that are there."""
        ...

    def load(self, name: str) -> PartState:
        """Read one part."""
        ...


class Method(ABC, Generic[Config]):
    """A way to craft perturbations. It knows nothing of files, command lines or launchers."""

    facts: ClassVar[Facts]
    config_class: ClassVar[type[MethodConfig]]
    presets: ClassVar[Mapping[str, Settings]]
    """Settings that `small` and `smoke` lay over the defaults, which are the paper's."""
    variants: ClassVar[Mapping[str, Mapping[str, Settings]]] = {}
    """Other defaults of the paper that go with a setting's value, by setting and value; a preset lies over them."""
    loss: ClassVar[str | None] = None
    """The figure of its steps that crafting lowers."""

    @abstractmethod
    def __init__(self, config: Config, problem: Problem) -> None: ...

    @classmethod
    def unit(cls, config: Config) -> Unit:
        """What one delta is shared by."""
        return "sample"

    @classmethod
    def budget(cls, config: Config, shape: tuple[int, int, int], levels: int) -> Budget:
        """Largest change of a sample of that shape, on a grid of `levels` levels."""
        assert isinstance(config, BoundedConfig)
        return Budget("linf", config.epsilon)

    @classmethod
    def untrained(cls, config: Config) -> Config | None:
        """The same settings but for its training, which is left out: a control for what training adds. None where a
        method has nothing that could be published untrained."""
        return None

    @classmethod
    def needs_labels(cls, config: Config) -> bool:
        """Whether these settings look at labels or masks; the facts tell it of the defaults."""
        return cls.facts.needs_labels and any(name in BY_CLASS for name in cls.tasks(config).names)

    @classmethod
    def tasks(cls, config: Config) -> CraftTasks:
        """What these settings craft for, where they look at labels or masks."""
        return config.task if isinstance(config, TaskConfig) else ONE_LABEL

    @classmethod
    def takes_volumes(cls, config: Config) -> bool:
        """Whether these settings can craft for volumes."""
        return False

    @classmethod
    def seed_is_secret(cls) -> bool:
        """Whether the deltas follow from the seed so directly that nobody else may know it: it is drawn from the
        operating system unless a user sets it."""
        return not cls.facts.needs_surrogate

    @classmethod
    def groups(cls, config: Config, source: Source) -> int:
        """Number of shared deltas; 0 if each sample has its own."""
        return 0

    @classmethod
    def texture(cls, config: Config, source: Source) -> TextureRecipe | None:
        """What deltas are drawn from again where images are published at sizes of their own; None: they are resized."""
        return None

    @classmethod
    def work(cls, config: Config, extent: Extent) -> Work | None:
        """What a run of that extent does on its busiest rank: the cost model that `hpcule plan` puts seconds to; None:
        not counted, and `plan` times a trial with these settings and extrapolates."""
        return None

    @classmethod
    def trial(cls, config: Config, batch: int, workers: int) -> Config:
        """Settings for a run of a few steps with this batch, whose steps cost what those of `config` cost; only used
        with `work`. What the cost does not depend on is left at its default, so that runs that cost the same have one
        trial."""
        return config

    def notes_steps(self, world: World) -> bool:
        """Whether this rank of `world` keeps a journal: one of those that take the same steps."""
        return world.leads

    @abstractmethod
    def run(self) -> Iterator[Event]:
        """Craft: from the start, or from where `restore` left off."""

    @abstractmethod
    def state(self) -> State:
        """What `restore` needs to go on from the last yielded event."""

    @abstractmethod
    def restore(self, saved: Saved) -> None:
        """Go on from a checkpoint, which may have been written by another number of ranks."""


def finite(values: Tensor) -> Tensor:
    """The tensor itself; the sign of NaN is 0, so that a diverged run would publish samples without protection.

    Raises:
        HpculeError: it holds NaN or infinite values.
    """
    if not bool(values.isfinite().all()):
        raise HpculeError("the training has diverged, its values are not finite: lower method.learning_rate")
    return values
