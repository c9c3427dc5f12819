"""A study file: what is crafted, what is varied, and which victims measure it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from hpcule.config.ranges import check_ranges, setting
from hpcule.config.run import Preset, WorldConfig
from hpcule.config.tree import Tree, build_config, merged, to_tree
from hpcule.craft.table import find
from hpcule.data.opening import Opening
from hpcule.victim.config import VictimConfig
from hpcule.victim.recipe import Recipe

Rate = Literal["constant", "sqrt", "linear", "tuned"]
VictimRate = Literal["constant", "sqrt", "linear"]
CONSTANT: tuple[VictimRate, ...] = ("constant",)
"""Default of `victim_rates`, which is no dimension of the grid."""
DATA = "data"
"""The factor whose values are data sets."""


@dataclass(frozen=True, kw_only=True)
class StudyData:
    """One of the data sets of a study, and what is set differently for it."""

    data: str
    name: str = ""
    """Name in tables and reports; empty: `data`."""
    test: str | None = None
    """Clean test samples; None: the test split of `data`."""
    craft: Tree = field(default_factory=dict)
    """Settings of the crafts over the study's own; those of a variant go over these."""
    victim: Tree = field(default_factory=dict)
    """Settings of the victims over the study's own."""
    subset: int | None = None
    """Number of samples to craft and train on; None: as the study says."""
    samples: int | None = setting(None, at_least=1)
    """Number of samples that victims train on; None: as the study says."""

    def __post_init__(self) -> None:
        """Check ranges."""
        check_ranges(self)


@dataclass(frozen=True, kw_only=True)
class StudyVictimConfig(VictimConfig):
    """Settings of a study's victims: those of any victim, and what other commands take from their run instead."""

    workers: int = setting(1, at_least=1)
    """Number of ranks that train each victim jointly."""

    @property
    def training(self) -> VictimConfig:
        """The settings of any victim."""
        return VictimConfig(**{declared.name: getattr(self, declared.name) for declared in fields(VictimConfig)})


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """One study: what is crafted, what is varied, and which victims measure it."""

    name: str
    data: str = ""
    """Samples to craft on; empty: the data sets that `factors` names."""
    test: str | None = None
    """Clean test samples; None: the test split of `data`."""
    method: str = "uc"
    preset: Preset = "paper"
    craft: Tree = field(default_factory=dict)
    """Settings of every craft, as in a file for `hpcule craft --config`."""
    victim: StudyVictimConfig = field(default_factory=StudyVictimConfig)
    variants: dict[str, Tree] = field(default_factory=dict)
    """Name -> `method`, `preset` and `craft` settings over the study's own: a factor whose values are whole methods."""
    factors: dict[str, list[Any]] = field(default_factory=dict)
    """Setting -> values, for example `craft.method.batch: [32, 64]` and `victim.batch: [64, 128]`; all combinations.
    The values of `data` are data sets: names, or mappings with the fields of `StudyData`."""
    rates: tuple[Rate, ...] = ("constant",)
    """How the method's learning rate follows its batch: constant, times the root of or times batch / rate_batch, or
    tuned: the one of `rate_grid` whose crafting loss ends lowest, for each batch and seed by itself."""
    rate_grid: tuple[float, ...] = setting((0.25, 0.5, 1.0, 2.0, 4.0), above=0)
    """What `tuned` multiplies the settings' learning rate with."""
    rate_batch: int | None = setting(None, at_least=1)
    """The batch at which the learning rate is what the settings say; None: the smallest of the study."""
    victim_rates: tuple[VictimRate, ...] = CONSTANT
    """How the victims' learning rate follows their batch: constant, times the root of or times batch /
    victim_rate_batch."""
    victim_rate_batch: int | None = setting(None, at_least=1)
    """The victim batch at which the learning rate is what the settings say; None: the smallest of the study."""
    recipes: tuple[Recipe, ...] = (Recipe(),)
    seeds: tuple[int, ...] = (0, 1, 2)
    """Each seeds a craft and its victims; controls have the same."""
    craft_target: float | None = setting(None, above=0, below=1)
    """Count the steps until the crafting loss has come down to this share of where it began."""
    equal_spectrum: bool = False
    """One more control: random noise with the mean spectrum and the strength of the deltas, for methods whose
    perturbations are smoother than white noise."""
    matched_noise: bool = False
    """One more control: random noise as strong as the deltas, for methods that leave some of their budget unused."""
    subset: int | None = None
    """Number of samples of `data`, spread evenly over it, to craft and train on; None: all."""
    samples: int | None = setting(None, at_least=1)
    """Number of samples that victims train on, the same for all; None: all."""
    world: WorldConfig = field(default_factory=WorldConfig)

    @property
    def opening(self) -> Opening:
        """How the crafts of the first cell open the data.

        Raises:
            UsageError: a setting of `craft` is out of range.
        """
        first = self.variant(next(iter(self.variants), None)).craft
        varied = {name.removeprefix("craft."): values[0] for name, values in self.factors.items()}
        names = {field.name for field in fields(Opening)}
        own = {name: value for name, value in {**first, **varied}.items() if name in names}
        return replace(build_config(Opening, own, "craft."), subset=self.subset)

    def __post_init__(self) -> None:
        """Check names and ranges."""
        check_ranges(self)
        for name, settings in self.variants.items():
            if unknown_names := sorted(settings.keys() - {"method", "preset", "craft"}):
                raise ValueError(f"variants.{name}.{unknown_names[0]}: valid are method, preset, craft")
        for variant in self.variants:
            find(self.variant(variant).method)
        if "craft.subset" in self.factors or any(
            "subset" in self.variant(name).craft for name in (None, *self.variants)
        ):
            raise ValueError("craft.subset: all cells of a study have the same samples; set the study's own subset")
        find(self.method)
        for name in ("rates", "victim_rates", "recipes", "seeds"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise ValueError(f"{name}={list(values)}: at least one, each once")
        if len(self.rate_grid) < 3 or sorted(set(self.rate_grid)) != list(self.rate_grid):
            raise ValueError(f"rate_grid={list(self.rate_grid)}: three or more factors, rising")
        if self.victim_rates != CONSTANT and "victim.batch" not in self.factors and self.victim_rate_batch is None:
            raise ValueError(
                f"victim_rates={list(self.victim_rates)}: no batch to scale from; vary victim.batch in factors, or set "
                "victim_rate_batch"
            )
        Opening(subset=self.subset)
        for name, values in self.factors.items():
            if name != DATA and not name.startswith(("craft.", "victim.")):
                raise ValueError(f"factors.{name}: a factor is `data`, or a setting below craft. or victim.")
            if not isinstance(values, list) or not values:
                raise ValueError(f"factors.{name}={values}: expected a list of values, for example [32, 64]")
        self._check_data()

    def _check_data(self) -> None:
        if DATA not in self.factors:
            if not self.data:
                raise ValueError("data: name the samples to craft on, or several data sets in factors.data")
            return
        for name in (DATA, "test"):
            if value := getattr(self, name):
                raise ValueError(
                    f"{name}={value}: factors.data names the data sets, each with its own tests; leave it out"
                )
        if len(self.data_sets) < len(self.factors[DATA]):
            raise ValueError(f"factors.data: {', '.join(self.data_sets)}: each once; give them a `name` each")
        for name in self.data_sets:
            self.on(name)

    @property
    def data_sets(self) -> dict[str, StudyData]:
        """The data sets by name: those that `factors` names, or the one of the study.

        Raises:
            UsageError: an unknown setting of a data set, or one of the wrong type.
        """
        entries = self.factors.get(DATA, [{"data": self.data, "test": self.test}])
        trees = [entry if isinstance(entry, Mapping) else {"data": entry} for entry in entries]
        found = [build_config(StudyData, tree, "factors.data.") for tree in trees]
        return {entry.name or entry.data: entry for entry in found}

    def on(self, data: str) -> StudyConfig:
        """The study as if it had the data set of this name alone.

        Raises:
            UsageError: a setting of its victims is unknown or out of range.
        """
        if DATA not in self.factors:
            return self
        own = self.data_sets[data]
        victim = merged(to_tree(self.victim), own.victim)
        return replace(
            self,
            data=own.data,
            test=own.test,
            craft=merged(self.craft, own.craft),
            victim=build_config(StudyVictimConfig, victim, "factors.data.victim."),
            factors={name: values for name, values in self.factors.items() if name != DATA},
            subset=own.subset or self.subset,
            samples=own.samples or self.samples,
        )

    def variant(self, name: str | None) -> StudyConfig:
        """The study as if it had this variant alone; None: as it is."""
        if name is None:
            return self
        own = self.variants[name]
        return replace(
            self,
            method=own.get("method", self.method),
            preset=own.get("preset", self.preset),
            craft=merged(self.craft, own.get("craft", {})),
            variants={},
        )
