"""The cells, crafts and victims that a study file stands for."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from hpcule.config.digest import digest
from hpcule.config.errors import UsageError
from hpcule.config.tree import build, merged, to_tree, unknown, with_overrides
from hpcule.craft.config import CraftConfig
from hpcule.craft.table import configure, find
from hpcule.data.opening import Opening
from hpcule.study.config import Rate, StudyConfig
from hpcule.victim.config import VictimConfig
from hpcule.victim.recipe import read_recipe, with_recipe, without_mixture

Role = Literal["protected", "untrained", "noise", "matched", "clean", "part"]
POWERS: Mapping[str, float] = {"constant": 0.0, "sqrt": 0.5, "linear": 1.0}
LARGEST_SHARE = 0.5
"""A batch above this share of the samples is no longer a sample of them."""


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
    """A victim to be trained on what a craft publishes (or, for a control, on what only shares its clusters): on the
    best of `crafts`, of which there is one unless the learning rate is tuned, and none for clean samples. `opening` is
    that of the crafts."""

    key: str
    role: Role
    config: VictimConfig
    seed: int
    recipe: str
    crafts: tuple[str, ...]
    opening: Opening

    @property
    def title(self) -> str:
        """For people."""
        return f"victim on {self.role}, {self.recipe}, batch {self.config.batch}, seed {self.seed}"


@dataclass(frozen=True)
class Cell:
    """One point of the grid: the values of its factors, its crafts (see Victim), and its victims by role."""

    number: int
    factors: Mapping[str, Any]
    crafts: tuple[str, ...]
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
    if config.variants:
        names, values = ["variant", *names], [list(config.variants), *values]
    for combination in itertools.product(*values):
        yield dict(zip(names, combination, strict=True))


def _add_cell(grid: Grid, config: StudyConfig, point: dict[str, Any], samples: int) -> None:
    config = config.variant(point.get("variant"))
    overrides = {"craft": [f"seed={point['seed']}"], "victim": []}
    for name in config.factors:
        section, _, setting = name.partition(".")
        overrides[section].append(f"{setting}={json.dumps(point[name])}")
    crafts = _crafts(config, overrides["craft"], point["rate"])
    craft = crafts[0]
    victim = _victim_config(config, overrides["victim"], point["recipe"])
    for what, batch in (("craft", getattr(craft.method, "batch", 0)), ("victim", victim.batch)):
        if batch > LARGEST_SHARE * (config.samples or samples if what == "victim" else samples):
            raise UsageError(f"the {what} batch {batch} is near the {samples} samples: at most half of them")
    made = tuple(_note_craft(grid, craft) for craft in crafts)
    untrained = _untrained(craft)
    basis = (_note_craft(grid, untrained),) if untrained else made[:1]
    seed, recipe, opening = point["seed"], point["recipe"], craft.opening
    victims: dict[Role, str] = {
        "protected": _note_victim(grid, "protected", victim, seed, recipe, made, made, config, opening),
        "clean": _note_victim(grid, "clean", victim, seed, without_mixture(recipe), (), "", config, opening),
        # The noise depends on who shares a delta and on the budget, not on how the method was trained.
        "noise": _note_victim(grid, "noise", victim, seed, recipe, basis, _sharing(craft, basis), config, opening),
    }
    if read_recipe(recipe).share is not None:
        victims["part"] = _note_victim(grid, "part", victim, seed, recipe, (), "", config, opening)
    if config.matched_noise:
        victims["matched"] = _note_victim(grid, "matched", victim, seed, recipe, made, made, config, opening)
    if untrained:
        victims["untrained"] = _note_victim(grid, "untrained", victim, seed, recipe, basis, basis, config, opening)
    grid.cells.append(Cell(len(grid.cells), point, made, victims))


def _crafts(config: StudyConfig, overrides: list[str], rate: Rate) -> list[CraftConfig]:
    """One craft, or one for each learning rate to choose from."""
    file = {**config.craft, "subset": config.subset}
    plain = configure(config.method, config.data, preset=config.preset, file=file, overrides=overrides)
    method: Any = plain.method
    if rate == "constant":
        return [plain]
    if not hasattr(method, "learning_rate") or not hasattr(method, "batch"):
        raise UsageError(f"rates: {config.method} has no learning rate and batch to scale")
    if rate == "tuned":
        if find(config.method).loss is None:
            raise UsageError(f"rates: {config.method} tells no crafting loss to tune by; use constant, sqrt or linear")
        scales = config.rate_grid
    else:
        batches = config.factors.get("craft.method.batch", [method.batch])
        scales = ((method.batch / (config.rate_batch or min(batches))) ** POWERS[rate],)
    rates = [method.learning_rate * scale for scale in scales]
    return [dataclasses.replace(plain, method=dataclasses.replace(method, learning_rate=value)) for value in rates]


def _victim_config(config: StudyConfig, overrides: list[str], recipe: str) -> VictimConfig:
    tree = with_overrides(merged(to_tree(config.victim), {}), overrides)
    return with_recipe(build(VictimConfig, tree, "victim."), recipe)


def _untrained(craft: CraftConfig) -> CraftConfig | None:
    method = find(craft.method.name).untrained(craft.method)
    return dataclasses.replace(craft, method=method) if method else None


def _sharing(craft: CraftConfig, basis: tuple[str, ...]) -> Any:
    """What the random-noise control of a craft depends on: the craft itself where its clusters or its deltas do it."""
    method = find(craft.method.name)
    unit = method.unit(craft.method)
    if unit == "cluster" or not method.facts.bounded:
        return basis
    budget = method.budget(craft.method, (1, 1, 1), 255)
    free = f" beside {budget.free_pixels}" if budget.free_pixels else ""
    norm = "" if budget.norm == "linf" else f"{budget.norm} "
    return f"{unit} {norm}{budget.epsilon:g}{free}"


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
    crafts: tuple[str, ...],
    identity: object,
    config: StudyConfig,
    opening: Opening,
) -> str:
    training = (to_tree(victim), recipe, seed, identity)
    key = digest(role, *training, config.data, config.test, to_tree(opening), config.samples)
    grid.victims.setdefault(key, Victim(key, role, victim, seed, recipe, crafts, opening))
    return key


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
