"""A study file, and the cells, crafts and victims that it stands for."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from hpcule.config.errors import UsageError
from hpcule.config.run import CraftConfig, Preset, WorldConfig
from hpcule.config.tree import build, merged, to_tree, unknown, with_overrides
from hpcule.craft.methods import configure, find
from hpcule.victim.config import VictimConfig, check_recipes

Rate = Literal["constant", "sqrt", "linear"]
Role = Literal["protected", "untrained", "noise", "clean"]
POWERS: Mapping[str, float] = {"constant": 0.0, "sqrt": 0.5, "linear": 1.0}
LARGEST_SHARE = 0.5
"""A batch above this share of the samples is no longer a sample of them."""


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """One study: what is crafted, what is varied, and which victims measure it."""

    name: str
    data: str
    test: str | None = None
    """Clean test samples; None: the test split of `data`."""
    method: str = "uc"
    preset: Preset = "paper"
    craft: dict[str, Any] = field(default_factory=dict)
    """Settings of every craft, as in a file for `hpcule craft --config`."""
    victim: VictimConfig = field(default_factory=VictimConfig)
    factors: dict[str, list[Any]] = field(default_factory=dict)
    """Setting -> values, for example `craft.method.batch: [32, 64]` and `victim.batch: [64, 128]`; all combinations."""
    rates: tuple[Rate, ...] = ("constant",)
    """How the method's learning rate follows its batch: constant, or times the root of, or times batch / rate_batch."""
    rate_batch: int | None = None
    """The batch at which the learning rate is what the settings say; None: the smallest of the study."""
    recipes: tuple[str, ...] = ("plain",)
    seeds: tuple[int, ...] = (0, 1, 2)
    """Each seeds a craft and its victims; controls have the same."""
    samples: int | None = None
    """Victims train on so many samples, the same for all; None: on all."""
    world: WorldConfig = field(default_factory=WorldConfig)

    def __post_init__(self) -> None:
        """Check names and ranges."""
        find(self.method)
        check_recipes(self.recipes)
        for name in ("rates", "recipes", "seeds"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise ValueError(f"{name}={list(values)}: at least one, each once")
        for name, values in self.factors.items():
            if not name.startswith(("craft.", "victim.")):
                raise ValueError(f"factors.{name}: a factor is a setting below craft. or victim.")
            if not isinstance(values, list) or not values:
                raise ValueError(f"factors.{name}={values}: expected a list of values, for example [32, 64]")


@dataclass(frozen=True)
class Craft:
    """A store to be made; `key` names its folder and depends on its settings alone."""

    key: str
    config: CraftConfig

    @property
    def title(self) -> str:
        """For people."""
        method = self.config.method
        settings = [f"{name} {getattr(method, name)}" for name in ("batch", "clusters") if hasattr(method, name)]
        return f"craft {method.name}, {', '.join([*settings, f'seed {self.config.seed}'])}"


@dataclass(frozen=True)
class Victim:
    """A victim to be trained, on what `craft` publishes (or, for a control, on what only shares its clusters)."""

    key: str
    role: Role
    config: VictimConfig
    seed: int
    recipe: str
    craft: str | None

    @property
    def title(self) -> str:
        """For people."""
        return f"victim on {self.role}, {self.recipe}, batch {self.config.batch}, seed {self.seed}"


@dataclass(frozen=True)
class Cell:
    """One point of the grid: the values of its factors, and the victims that measure it, by role."""

    number: int
    factors: Mapping[str, Any]
    craft: str
    victims: Mapping[Role, str]


@dataclass(frozen=True)
class Grid:
    """Everything that a study has to do; crafts and victims that cells have in common stand here once."""

    cells: list[Cell]
    crafts: dict[str, Craft]
    victims: dict[str, Victim]


def expand(config: StudyConfig, samples: int) -> Grid:
    """All cells of a study on so many samples.

    Raises:
        UsageError: a cell with settings that its method or victim refuses, or with a batch near the number of samples.
    """
    grid = Grid([], {}, {})
    for point in _points(config):
        try:
            _add_cell(grid, config, point, samples)
        except UsageError as error:
            where = ", ".join(f"{name}={value}" for name, value in point.items())
            raise UsageError(f"cell {len(grid.cells)} ({where}): {error}") from None
    return grid


def _points(config: StudyConfig) -> Iterator[dict[str, Any]]:
    names = [*config.factors, "rate", "recipe", "seed"]
    values = [*config.factors.values(), config.rates, config.recipes, config.seeds]
    for combination in itertools.product(*values):
        yield dict(zip(names, combination, strict=True))


def _add_cell(grid: Grid, config: StudyConfig, point: dict[str, Any], samples: int) -> None:
    overrides = {"craft": [f"seed={point['seed']}"], "victim": []}
    for name in config.factors:
        section, _, setting = name.partition(".")
        overrides[section].append(f"{setting}={json.dumps(point[name])}")
    craft = _craft(config, overrides["craft"], point["rate"])
    victim = _victim_config(config, overrides["victim"], point["recipe"])
    for what, batch in (("craft", getattr(craft.method, "batch", 0)), ("victim", victim.batch)):
        if batch > LARGEST_SHARE * (config.samples or samples if what == "victim" else samples):
            raise UsageError(f"the {what} batch {batch} is near the {samples} samples: at most half of them")
    made = _note_craft(grid, craft)
    untrained = _untrained(craft)
    basis = _note_craft(grid, untrained) if untrained else made
    seed, recipe = point["seed"], point["recipe"]
    victims: dict[Role, str] = {
        "protected": _note_victim(grid, "protected", victim, seed, recipe, made, made, config),
        "clean": _note_victim(grid, "clean", victim, seed, recipe, None, "", config),
        # The noise depends on who shares a delta and on the budget, not on how the method was trained.
        "noise": _note_victim(grid, "noise", victim, seed, recipe, basis, _sharing(craft, basis), config),
    }
    if untrained:
        victims["untrained"] = _note_victim(grid, "untrained", victim, seed, recipe, basis, basis, config)
    grid.cells.append(Cell(len(grid.cells), point, made, victims))


def _craft(config: StudyConfig, overrides: list[str], rate: Rate) -> CraftConfig:
    plain = configure(config.method, config.data, preset=config.preset, file=config.craft, overrides=overrides)
    method: Any = plain.method
    if rate == "constant":
        return plain
    if not hasattr(method, "learning_rate") or not hasattr(method, "batch"):
        raise UsageError(f"rates: {config.method} has no learning rate and batch to scale")
    batches = config.factors.get("craft.method.batch", [method.batch])
    scaled = method.learning_rate * (method.batch / (config.rate_batch or min(batches))) ** POWERS[rate]
    return dataclasses.replace(plain, method=dataclasses.replace(method, learning_rate=scaled))


def _victim_config(config: StudyConfig, overrides: list[str], recipe: str) -> VictimConfig:
    tree = with_overrides(merged(to_tree(config.victim), {}), overrides)
    return build(VictimConfig, {**tree, "augment": "crop-flip" if recipe == "crop-flip" else "none"}, "victim.")


def _untrained(craft: CraftConfig) -> CraftConfig | None:
    method = find(craft.method.name).untrained(craft.method)
    return dataclasses.replace(craft, method=method) if method else None


def _sharing(craft: CraftConfig, basis: str) -> str:
    unit = find(craft.method.name).unit(craft.method)
    return basis if unit == "cluster" else f"{unit} {craft.method.epsilon:g}"


def _note_craft(grid: Grid, config: CraftConfig) -> str:
    settings = to_tree(config)
    del settings["world"]
    key = digest("craft", settings)
    grid.crafts.setdefault(key, Craft(key, config))
    return key


def _note_victim(
    grid: Grid,
    role: Role,
    victim: VictimConfig,
    seed: int,
    recipe: str,
    craft: str | None,
    identity: str,
    config: StudyConfig,
) -> str:
    key = digest(role, to_tree(victim), seed, identity, config.data, config.test, config.samples)
    grid.victims.setdefault(key, Victim(key, role, victim, seed, recipe, craft))
    return key


def digest(*parts: Any) -> str:
    """Sixteen hexadecimal digits that stand for plain values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def find_item(grid: Grid, key: str) -> Craft | Victim:
    """The craft or victim of that key.

    Raises:
        UsageError: there is none.
    """
    items: dict[str, Craft | Victim] = {**grid.crafts, **grid.victims}
    if key not in items:
        raise UsageError(unknown("item", key, sorted(items)))
    return items[key]


def name_of(factor: str) -> str:
    """A factor for people: `craft.method.batch` is the craft batch, `victim.batch` the victim batch."""
    return factor.replace("craft.method.", "craft ").replace("craft.", "craft ").replace(".", " ").replace("_", " ")
