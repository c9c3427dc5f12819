"""What results.json of an evaluation holds: the one thing that the table, the report and the claims are derived from.

Every accuracy is a share in [0, 1] of the clean test set. A recipe is judged by the headline measure of its task: where
classes are so unequal that accuracy flatters, by balanced accuracy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NotRequired, TypedDict

from hpcule.measure.audibility import AudibilityNumbers
from hpcule.measure.bayes import BayesError
from hpcule.measure.detection import Detection
from hpcule.measure.linearity import Linearity
from hpcule.measure.structure import Separability
from hpcule.measure.visibility import VisibilityNumbers
from hpcule.victim.kinds import Kind
from hpcule.victim.result import EpochDocument


class VictimDocument(TypedDict):
    """One training: the headline measure after the last epoch, and at the epoch that was best on the test set.

    `curve` has the headline measure of every epoch, and `measures` all those of the last one by name. `linearity` is
    there where a network is trained as a whole on images; `alignment` and `uniformity` of features where they are
    learnt first.
    """

    seed: int
    last: float
    best: float
    best_epoch: int
    train_last: float
    batch_taken: int
    steps: int
    samples_seen: int
    seconds: float
    curve: list[EpochDocument]
    measures: Mapping[str, float]
    linearity: NotRequired[Linearity]
    alignment: NotRequired[float]
    uniformity: NotRequired[float]


class SetDocument(TypedDict):
    """Victims of one recipe on one set; `mean` and `interval` are over the seeds' `last`."""

    set: Kind
    title: str
    seeds: list[VictimDocument]
    mean: float
    interval: Sequence[float] | None


class RecipeDocument(TypedDict):
    """One way of training, on the clean control, on the random-noise controls and on the protected set.

    `measure` is the headline, of which `last` and `mean` are values, `chance` what guessing reaches, and `effective`
    the number of test samples that counts for intervals; see `Headline`.
    A mixture also has its clean part alone, and `gain`: what the protected samples add to that. Where the clean
    control did not learn, `invalid_because` says so, and the recipe shows nothing. `repetition` is there where it did
    not learn at first; if it did with more steps, `sets` and `settings` are those of the repetition.
    """

    name: str
    title: str
    settings: Mapping[str, object]
    measure: str
    chance: float
    effective: float
    sets: list[SetDocument]
    gain: NotRequired[GainDocument]
    repetition: NotRequired[RepetitionDocument]
    invalid_because: NotRequired[str]


class GainDocument(TypedDict):
    """Accuracy on a mixture minus that on its clean part alone, seed by seed; `share` of the samples is protected."""

    share: float
    mean: float
    interval: Sequence[float] | None


class AttemptDocument(TypedDict):
    """Optimizer steps of a recipe's victims, and the means over their seeds."""

    steps: int
    means: Mapping[Kind, float]


class RepetitionDocument(TypedDict):
    """The victims of a recipe whose clean control did not learn, and the same ones `again` with more steps: the
    control alone where it did not learn then either."""

    first: AttemptDocument
    again: AttemptDocument


class FactsDocument(TypedDict):
    """The seven facts by which the literature distinguishes methods: of robustness, what the authors claim and what was
    measured. Two more where they are known."""

    data: str
    task: str
    intent: str
    needs_labels: bool
    bounded: bool
    needs_surrogate: bool
    claimed: str
    measured: Sequence[str]
    paper: NotRequired[str]
    weaknesses: NotRequired[str]


class PerturbationDocument(TypedDict):
    """How the perturbation was crafted; `settings` never hold the seed, which may be the key."""

    method: str
    title: str
    unit: str
    groups: int
    epsilon: float
    norm: str
    free_pixels: NotRequired[int]
    levels: int
    preset: str
    n: int
    settings: Mapping[str, object]
    facts: FactsDocument


class TaskDocument(TypedDict):
    """Number of samples that networks trained and were tested on; `chance` is the share of the largest test class, or
    what guessing reaches of the headline measure that goes with it."""

    name: str
    train: int
    test: int
    chance: float


class DataDocument(TaskDocument):
    """What the victims trained and were tested on.

    `rate` is there for recordings: samples a second. `tiles` where samples are tiles of images. `depth` is there
    for volumes: slices, which `shape` has one below the other.
    """

    classes: int
    class_names: list[str]
    shape: Sequence[int]
    rate: NotRequired[int]
    depth: NotRequired[int]
    tiles: NotRequired[bool]


class StructureDocument(TypedDict):
    """What `values` values of `n` samples tell of the labels: of the deltas, and of the clean samples themselves.

    `measure` is the headline of naming these samples' classes, by which simple classifiers are judged, and `chance`
    what guessing reaches.

    `bayes` estimates how well anybody could tell classes apart by published samples' values, and by clean ones';
    `detection` is how well simple classifiers do.
    """

    delta: Separability
    clean: Separability
    class_share: float
    bayes: Mapping[Literal["published", "clean"], BayesError]
    detection: Mapping[Literal["published", "clean"], Detection]
    measure: str
    chance: float
    n: int
    values: int


class WorstCaseDocument(TypedDict):
    """The recipe that learns most from the protected set; mixtures with clean samples do not stand for it."""

    recipe: str
    protected: float


class ProtectionDocument(TypedDict):
    """The whole of results.json. `versions` names the libraries that were used; `visibility` is there for images,
    `audibility` for recordings."""

    kind: Literal["evaluate"]
    hpcule: str
    versions: NotRequired[Mapping[str, str]]
    status: Literal["done", "invalid"]
    reduced: bool
    protection: PerturbationDocument
    data: DataDocument
    visibility: NotRequired[VisibilityNumbers]
    audibility: NotRequired[AudibilityNumbers]
    structure: NotRequired[StructureDocument]
    recipes: list[RecipeDocument]
    controls: Mapping[str, Mapping[str, float]]
    worst_case: WorstCaseDocument
    invalid_because: str | None
    left_out: NotRequired[Sequence[str]]
    """Attackers of a suite that were not trained, and why."""


def noun(results: ProtectionDocument) -> str:
    """What the samples are, in the plural."""
    return "recordings" if "rate" in results["data"] else "tiles" if "tiles" in results["data"] else "images"


def victims(recipe: RecipeDocument, kind: Kind) -> SetDocument:
    """The set of this kind within a recipe; every recipe has a clean, a noise and a protected one."""
    return next(entry for entry in recipe["sets"] if entry["set"] == kind)


def best_noise(recipe: RecipeDocument) -> SetDocument:
    """The random-noise control that protects best by itself."""
    controls = [entry for entry in recipe["sets"] if entry["set"] in ("noise", "spectrum")]
    return min(controls, key=lambda entry: entry["mean"])


def left(recipe: RecipeDocument) -> float | None:
    """Of what the clean control learns beyond chance, the share that victims learn from the protected set all the same.

    None where the clean control did not learn.
    """
    if "invalid_because" in recipe:
        return None
    clean, protected = victims(recipe, "clean")["mean"], victims(recipe, "protected")["mean"]
    return (protected - recipe["chance"]) / (clean - recipe["chance"])


def most_successful(recipes: Sequence[RecipeDocument]) -> RecipeDocument:
    """The recipe that learns most from the protected set: by its measure where all have one, else by what is left."""
    if len({recipe["measure"] for recipe in recipes}) == 1:
        return max(recipes, key=lambda recipe: victims(recipe, "protected")["mean"])
    return max(recipes, key=lambda recipe: left(recipe) or 0.0)


def whole_recipes(results: ProtectionDocument) -> list[RecipeDocument]:
    """Recipes on protected samples alone; the others are mixtures."""
    return [recipe for recipe in results["recipes"] if "gain" not in recipe]


def worst_recipe(results: ProtectionDocument) -> RecipeDocument:
    """The recipe that learns most from the protected set alone."""
    return next(recipe for recipe in results["recipes"] if recipe["name"] == results["worst_case"]["recipe"])


def measures_of(results: ProtectionDocument) -> str:
    """The headline measures of all recipes as readers see them: "balanced accuracy"."""
    return ", ".join(dict.fromkeys(recipe["measure"] for recipe in results["recipes"]))


def with_article(measure: str) -> str:
    """A measure as a noun: "an accuracy"."""
    return f"{'an' if measure[0] in 'aeiou' else 'a'} {measure}"


def capitalised(text: str) -> str:
    """A text whose first letter alone is changed: "Mean IoU"."""
    return text[:1].upper() + text[1:]


def percent(share: float) -> str:
    """A share in [0, 1] as readers see it: "72.0%"."""
    return f"{100 * share:.1f}%"


def percent_range(bounds: Sequence[float] | None) -> str:
    """An interval of shares as readers see it: "70.1% to 73.9%", or "one seed" where there is none."""
    return f"{percent(bounds[0])} to {percent(bounds[1])}" if bounds else "one seed"


def points_range(bounds: Sequence[float]) -> str:
    """An interval of differences as readers see it: "−55.1 to −52.5"."""
    return f"{percentage_points(bounds[0])} to {percentage_points(bounds[1])}"


def percentage_points(share: float) -> str:
    """A difference of shares as readers see it, in percentage points with its sign: "−53.8"."""
    return f"{100 * share:+.1f}".replace("-", "−")
