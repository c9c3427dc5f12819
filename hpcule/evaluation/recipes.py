"""What the victims of each recipe came to, and which recipes are trained again with more steps: those whose clean
control has not learnt, since they show nothing."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean

from hpcule.config.tree import to_tree
from hpcule.evaluation.matrix import CellResult, MatrixCell, Subject
from hpcule.evaluation.results import AttemptDocument, RecipeDocument, SetDocument, VictimDocument, percent
from hpcule.evaluation.suites import EvaluateConfig
from hpcule.measure.accuracy import ACCURACY, has_learnt, paired_difference, summarise
from hpcule.tasks.table import task_of
from hpcule.victim.kinds import TITLES, Kind
from hpcule.victim.recipe import Recipe
from hpcule.victim.training import LONGER


def kinds_of(config: EvaluateConfig, recipe: Recipe) -> tuple[Kind, ...]:
    """The kinds of training set of a recipe's victims."""
    spectrum: tuple[Kind, ...] = ("spectrum",) if config.equal_spectrum else ()
    part: tuple[Kind, ...] = () if recipe.share is None else ("part",)
    return ("clean", "noise", *spectrum, "protected", *part)


def recipe_cells(config: EvaluateConfig, recipe: Recipe, *, longer: bool = False) -> list[MatrixCell]:
    """The victims of a recipe, those of the clean control first."""
    return [MatrixCell(recipe, kind, seed, longer) for kind in kinds_of(config, recipe) for seed in config.seeds]


class TrainedVictims:
    """The results of all victims of an evaluation that are trained."""

    def __init__(self, config: EvaluateConfig, subject: Subject) -> None:
        """Begin without any.

        Args:
            config: recipes and seeds.
            subject: what the victims share.
        """
        self._config, self._subject = config, subject
        asked = {recipe: task_of(subject.settings(recipe).task, subject.test) for recipe in config.recipes}
        headlines = {task.name: task.headline(subject.test) for task in asked.values()}
        self._headlines = {recipe: headlines[task.name] for recipe, task in asked.items()}
        self._found = dict[MatrixCell, CellResult]()

    def add(self, found: Mapping[MatrixCell, CellResult]) -> None:
        """Take down results."""
        self._found |= found

    def has_learnt(self, recipe: Recipe, *, longer: bool = False) -> bool:
        """Whether the clean control of a recipe has learnt, as it was trained first or `longer`."""
        clean = self._mean(recipe, "clean", longer=longer)
        return clean is not None and has_learnt(clean, self._headlines[recipe].chance)

    def to_repeat(self) -> list[Recipe]:
        """Recipes whose clean control has not learnt, but for those that have no steps of which there could be more."""
        return [
            recipe
            for recipe in self._config.recipes
            if not self.has_learnt(recipe)
            and self._subject.settings(recipe) != self._subject.settings(recipe, longer=True)
        ]

    def unlearnt(self, recipe: Recipe) -> str:
        """What the clean control of a recipe reached at first, in words."""
        headline, reached = self._headlines[recipe], percent(self._mean(recipe, "clean") or 0.0)
        measure = "" if headline.measure == ACCURACY else f" of {headline.measure}"
        chance = percent(headline.chance)
        return f"the clean control of recipe {recipe.name} reached {reached}{measure}, chance is {chance}"

    def document(self, recipe: Recipe) -> RecipeDocument:
        """What a recipe came to: after more steps if its clean control has learnt then, and not before."""
        longer = self.has_learnt(recipe, longer=True)
        sets, values, headline = list[SetDocument](), dict[Kind, list[float]](), self._headlines[recipe]
        for kind in kinds_of(self._config, recipe):
            cells = self._cells(recipe, kind, longer=longer)
            victims = [_victim(self._found[cell], cell.seed, headline.measure) for cell in cells]
            values[kind] = [victim["last"] for victim in victims]
            mean, interval = (summary := summarise(values[kind])).mean, summary.interval
            sets.append({"set": kind, "title": TITLES[kind], "seeds": victims, "mean": mean, "interval": interval})
        found: RecipeDocument = {
            "name": recipe.name,
            "title": recipe.title,
            "settings": to_tree(self._subject.settings(recipe, longer=longer)),
            "measure": headline.measure,
            "chance": headline.chance,
            "effective": headline.effective,
            "sets": sets,
        }
        if recipe.share is not None:
            gain = paired_difference(values["protected"], values["part"])
            found["gain"] = {"share": recipe.share, "mean": gain.mean, "interval": gain.interval}
        again = self._mean(recipe, "clean", longer=True)
        if again is not None:
            found["repetition"] = {"first": self._attempt(recipe), "again": self._attempt(recipe, longer=True)}
        if not self.has_learnt(recipe, longer=longer):
            found["invalid_because"] = f"{self.unlearnt(recipe)}{self._repeated(recipe, again)}"
        return found

    def _repeated(self, recipe: Recipe, again: float | None) -> str:
        if again is not None:
            return f"; with {LONGER} times as many steps it reached {percent(again)}"
        return "; time did not suffice to train it for longer" if recipe in self.to_repeat() else ""

    def _cells(self, recipe: Recipe, kind: Kind, *, longer: bool) -> list[MatrixCell]:
        return [MatrixCell(recipe, kind, seed, longer) for seed in self._config.seeds]

    def _mean(self, recipe: Recipe, kind: Kind, *, longer: bool = False) -> float | None:
        """Mean over the seeds; None where they were not trained."""
        cells, measure = self._cells(recipe, kind, longer=longer), self._headlines[recipe].measure
        if cells[0] not in self._found:
            return None
        return fmean(self._found[cell].victim.last.measures[measure] for cell in cells)

    def _attempt(self, recipe: Recipe, *, longer: bool = False) -> AttemptDocument:
        means = {kind: self._mean(recipe, kind, longer=longer) for kind in kinds_of(self._config, recipe)}
        steps = self._found[self._cells(recipe, "clean", longer=longer)[0]].victim.steps
        return {"steps": steps, "means": {kind: mean for kind, mean in means.items() if mean is not None}}


def _victim(result: CellResult, seed: int, measure: str) -> VictimDocument:
    trained = result.victim
    curve = [(found.epoch, found.train, found.measures[measure]) for found in trained.curve]
    best_epoch, _, best = max(curve, key=lambda found: found[2])
    _, train_last, last = curve[-1]
    victim: VictimDocument = {
        "seed": seed,
        "last": last,
        "best": best,
        "best_epoch": best_epoch,
        "train_last": train_last,
        "batch_taken": trained.batch_taken,
        "steps": trained.steps,
        "samples_seen": trained.samples_seen,
        "seconds": round(trained.seconds, 2),
        "curve": [{"epoch": epoch, "train": train, "test": test} for epoch, train, test in curve],
        "measures": dict(trained.last.measures),
    }
    if trained.alignment is not None and trained.uniformity is not None:
        victim |= {"alignment": trained.alignment, "uniformity": trained.uniformity}
    if result.linearity is not None:
        victim["linearity"] = result.linearity
    return victim
