"""The cells, crafts and victims that a study file stands for."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeAlias

from hpcule.config.digest import digest
from hpcule.config.errors import UsageError
from hpcule.config.tree import build_config, merged, to_tree, unknown, with_overrides
from hpcule.craft.config import CraftConfig
from hpcule.craft.table import configure, find
from hpcule.data.opening import Opening
from hpcule.study.config import CONSTANT, DATA, Rate, StudyConfig, StudyVictimConfig
from hpcule.victim.job import Fingerprints, VictimJob
from hpcule.victim.kinds import Kind, noise_basis
from hpcule.victim.recipe import Recipe
from hpcule.victim.training_schedule import check_batch_for

POWERS: Mapping[str, float] = {"constant": 0.0, "sqrt": 0.5, "linear": 1.0}
LEVELS = 255
Factors = Mapping[str, Any]
"""Values of what a study varies, by name: settings of any type."""


@dataclass(frozen=True)
class StudySamples:
    """The samples of one data set of a study.

    Attributes:
        n: number of training samples.
        training, test: fingerprints of training and test samples, as the study opens them.
    """

    n: int
    training: str
    test: str


SamplesByData: TypeAlias = Mapping[str, StudySamples]
"""The samples of a study by the name of their data set."""


@dataclass(frozen=True)
class Craft:
    """A store to be made; `key` names its folder and depends on its settings and on the samples, `data` names the data
    set."""

    key: str
    config: CraftConfig
    data: str

    @property
    def title(self) -> str:
        """Name of the craft on a terminal."""
        method = self.config.method
        settings = [f"{name} {getattr(method, name)}" for name in ("batch", "clusters") if hasattr(method, name)]
        return ", ".join([f"craft {method.name}", self.data, *settings, f"seed {self.config.seed}"])


@dataclass(frozen=True)
class StudyVictim:
    """A victim to be trained on what a craft publishes (or, for a control, on what only shares its clusters): on the
    best of `crafts`, of which there is one unless the learning rate is tuned, and none for clean samples and for random
    noise that needs no store. `data` names the data set, `workers` is the number of ranks that train it jointly,
    `opening` is that of the crafts, and `planned` the craft whose plan such noise needs."""

    key: str
    data: str
    job: VictimJob
    workers: int
    recipe: Recipe
    crafts: tuple[str, ...]
    opening: Opening
    planned: CraftConfig | None = None

    @property
    def title(self) -> str:
        """Name of the victim on a terminal."""
        job = self.job
        jointly = f", {self.workers} workers" if self.workers > 1 else ""
        settings = f"{self.recipe.name}, batch {job.config.batch}{jointly}, seed {job.seed}"
        return f"victim on {job.kind}, {self.data}, {settings}"


@dataclass(frozen=True)
class Cell:
    """One point of the grid: the values of its factors, its crafts (see StudyVictim), and its victims by kind."""

    number: int
    factors: Factors
    crafts: tuple[str, ...]
    victims: Mapping[Kind, str]


@dataclass(frozen=True)
class StudyGrid:
    """Everything that a study has to do; crafts and victims that cells have in common stand here once."""

    cells: list[Cell]
    crafts: dict[str, Craft]
    victims: dict[str, StudyVictim]
    notes: list[str] = field(default_factory=list)
    """What a reader should know of the settings."""


def expand(config: StudyConfig, samples: SamplesByData) -> StudyGrid:
    """All cells of a study on these samples.

    Raises:
        UsageError: a cell with settings that its method or victim refuses, or with a batch larger than the data.
    """
    grid = StudyGrid([], {}, {})

    @cache
    def settings(data: str, variant: str | None) -> StudyConfig:
        return config.on(data).variant(variant)

    for point in _points(config):
        data = point.get(DATA, config.data)
        try:
            _add_cell(grid, settings(data, point.get("variant")), point, data, samples[data])
        except UsageError as error:
            shown = {**point, "recipe": point["recipe"].name}
            where = ", ".join(f"{name}={value}" for name, value in shown.items())
            raise UsageError(f"cell {len(grid.cells)} ({where}): {error}") from None
    return grid


def _points(config: StudyConfig) -> Iterator[Factors]:
    """Combinations in the order of the grid: the data sets one after the other, so that few are open at a time."""
    varied: dict[str, Iterable[object]] = {"variant": config.variants} if config.variants else {}
    varied |= {**config.factors, "rate": config.rates}
    if config.victim_rates != CONSTANT:
        varied["victim_rate"] = config.victim_rates
    varied |= {"recipe": config.recipes, "seed": config.seeds}
    if DATA in config.factors:
        varied = {DATA: config.data_sets, **{name: values for name, values in varied.items() if name != DATA}}
    for combination in itertools.product(*varied.values()):
        yield dict(zip(varied, combination, strict=True))


def _add_cell(grid: StudyGrid, config: StudyConfig, point: Factors, data: str, samples: StudySamples) -> None:
    """Add a cell of a study that has its data set and its variant alone."""
    overrides = {"craft": [f"seed={point['seed']}"], "victim": []}
    for name in config.factors:
        section, _, setting = name.partition(".")
        overrides[section].append(f"{setting}={json.dumps(point[name])}")
    crafts = _crafts(config, overrides["craft"], point["rate"])
    craft = crafts[0]
    victim = _victim_config(config, overrides["victim"])
    recipe: Recipe = point["recipe"]
    _check_batch(grid, "craft", getattr(craft.method, "batch", 0), data, samples.n)
    _check_batch(grid, "victim", victim.batch, data, config.samples or samples.n)
    made = tuple(_note_craft(grid, craft, data, samples) for craft in crafts)
    untrained = _untrained(craft)
    basis = (_note_craft(grid, untrained, data, samples),) if untrained else made[:1]
    shared = _noise_basis(craft)
    crafts_of: dict[Kind, tuple[str, ...]] = {"protected": made, "clean": (), "noise": () if shared else basis}
    if recipe.share is not None:
        crafts_of["part"] = ()
    if config.matched_noise:
        crafts_of["matched"] = made
    if config.equal_spectrum:
        crafts_of["spectrum"] = made
    if untrained:
        crafts_of["untrained"] = basis
    # The noise depends on what shares a delta and on the budget, not on how the method was trained.
    noise = shared or basis
    opening = craft.opening
    training, test = digest(samples.training, to_tree(opening), config.samples), digest(samples.test, to_tree(opening))
    victims: dict[Kind, str] = {}
    for kind, needed in crafts_of.items():
        job = _with_rate(VictimJob.of(victim.training, recipe, kind, point["seed"]), config, point)
        seen = Fingerprints(training, test, store=digest(needed), noise=digest(noise))
        key = victims[kind] = _key(job, victim.workers, seen)
        planned = craft if kind == "noise" and shared else None
        grid.victims.setdefault(key, StudyVictim(key, data, job, victim.workers, recipe, needed, opening, planned))
    grid.cells.append(Cell(len(grid.cells), {**point, "recipe": recipe.name}, made, victims))


def _key(job: VictimJob, workers: int, seen: Fingerprints) -> str:
    """Name of a victim's result: with `batch_norm: local`, a different number of ranks trains a different function."""
    if not job.config.countermeasures.features:
        check_batch_for(workers, job.config.batch)
    key = job.key(seen)
    return key if workers == 1 else digest(key, workers)


def _check_batch(grid: StudyGrid, what: str, batch: int, data: str, samples: int) -> None:
    """Refuse a batch larger than the data, and note one of more than half of it."""
    seen = f"the {samples} samples of {data}"
    if batch > samples:
        raise UsageError(f"the {what} batch {batch} is more than {seen}: at most all of them")
    if 2 * batch > samples:
        note = f"A {what} batch of {batch} is more than half of {seen}, hardly a random part of them."
        grid.notes.extend({note} - set(grid.notes))


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
            raise UsageError(
                f"rates: {config.method} reports no crafting loss to tune by; use constant, sqrt or linear"
            )
        scales = config.rate_grid
    else:
        batches = config.factors.get("craft.method.batch", [])
        scales = (_scale(rate, method.batch, config.rate_batch, batches),)
    rates = [method.learning_rate * scale for scale in scales]
    return [dataclasses.replace(plain, method=dataclasses.replace(method, learning_rate=value)) for value in rates]


def _victim_config(config: StudyConfig, overrides: list[str]) -> StudyVictimConfig:
    tree = with_overrides(merged(to_tree(config.victim), {}), overrides)
    return build_config(StudyVictimConfig, tree, "victim.")


def _with_rate(job: VictimJob, config: StudyConfig, point: Factors) -> VictimJob:
    """The job with the learning rate that the point's policy says, whatever the recipe sets it to."""
    rate = point.get("victim_rate", "constant")
    if rate == "constant":
        return job
    if learner := job.config.countermeasures.features:
        raise UsageError(f"victim_rates: {learner.name} has no learning rate and batch to scale; use constant")
    scale = _scale(rate, job.config.batch, config.victim_rate_batch, config.factors.get("victim.batch", []))
    learning_rate = job.config.learning_rate * scale
    return dataclasses.replace(job, config=dataclasses.replace(job.config, learning_rate=learning_rate))


def _scale(rate: str, batch: int, reference: int | None, batches: Sequence[object]) -> float:
    """What a policy multiplies the learning rate with; without a reference, the smallest of the study's batches is."""
    # Values that are no batch are refused where their own cell is added.
    smallest = min(value for value in (batch, *batches) if isinstance(value, int | float) and value > 0)
    return float((batch / (reference or smallest)) ** POWERS[rate])


def _untrained(craft: CraftConfig) -> CraftConfig | None:
    method = find(craft.method.name).untrained(craft.method)
    return dataclasses.replace(craft, method=method) if method else None


def _noise_basis(craft: CraftConfig) -> tuple[object, ...] | None:
    """All that the random-noise control of a craft depends on; None: on its store, which is not there yet."""
    method = find(craft.method.name)
    # A budget for one value of 8 bits stands for that of the samples, which all crafts share.
    budget, tasks = method.budget(craft.method, (1, 1, 1), LEVELS), method.tasks(craft.method)
    return noise_basis(method.unit(craft.method), budget, LEVELS, tasks.written())


def _note_craft(grid: StudyGrid, config: CraftConfig, data: str, samples: StudySamples) -> str:
    settings = to_tree(config)
    del settings["world"]
    key = digest("craft", settings, samples.training)
    grid.crafts.setdefault(key, Craft(key, config, data))
    return key


def find_item(grid: StudyGrid, key: str) -> Craft | StudyVictim:
    """The craft or victim of that key.

    Raises:
        UsageError: there is none.
    """
    items: dict[str, Craft | StudyVictim] = {**grid.crafts, **grid.victims}
    if key not in items:
        raise UsageError(unknown("item", key, sorted(items)))
    return items[key]


def name_of(factor: str) -> str:
    """Name of a factor in reports: `craft.method.batch` is the craft batch, `victim.batch` the victim batch."""
    return factor.replace("craft.method.", "craft ").replace("craft.", "craft ").replace(".", " ").replace("_", " ")
