"""Several stores of the same samples, measured in the same way: whose protection is left in the worst case."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NotRequired, TypedDict

from hpcule.config.version import __version__
from hpcule.evaluation.bench import Setup
from hpcule.evaluation.claims import SAME
from hpcule.evaluation.evaluate import Victims, foreseen
from hpcule.evaluation.pictures import Pictures
from hpcule.evaluation.results import (
    DataDocument,
    ProtectionDocument,
    best_noise,
    left,
    victims,
    whole_recipes,
    worst_recipe,
)
from hpcule.evaluation.suites import EvaluateConfig
from hpcule.store.read import StoreReader


class MeasureDocument(TypedDict):
    """One recipe on one store: its headline measure, and what share of what can be learnt beyond chance is left.

    `noise` is that of the noise control that protects best; `left` is None where the clean control did not learn.
    """

    protected: float
    noise: float
    left: float | None


class ComparedDocument(TypedDict):
    """One store. `worst` names the recipe that learns most; `psnr_db` is there for images that were changed."""

    name: str
    method: str
    title: str
    preset: str
    reduced: bool
    epsilon: float
    norm: str
    psnr_db: NotRequired[float]
    worst: str
    recipes: Mapping[str, MeasureDocument]


class StoresDocument(TypedDict):
    """What was measured of several stores of the same samples; `stores` begins with the best worst case."""

    hpcule: str
    status: Literal["done", "invalid"]
    data: DataDocument
    seeds: int
    titles: Mapping[str, str]
    """Titles of the recipes, by name."""
    measure: str
    """The headline of all of them, with `chance` and `effective` as in `RecipeDocument`."""
    chance: float
    effective: float
    clean: Mapping[str, float]
    stores: list[ComparedDocument]


class ComparisonDocument(StoresDocument):
    """The whole of results.json of a comparison."""

    kind: Literal["compare"]


def compare_stores(
    config: EvaluateConfig, stores: Mapping[str, StoreReader], setup: Setup
) -> tuple[ComparisonDocument, dict[str, tuple[ProtectionDocument, Pictures]]]:
    """Evaluate all stores, with the same clean controls; what they have come to, and the results of each.

    Args:
        config: recipes, seeds, and the victim's own settings.
        stores: complete ones, by name.
        setup: the victims' results go to its folder `cells`, which all stores share.

    Raises:
        HpculeError: as `evaluate`.
    """
    each = {name: Victims(config, setup.bench(name, store)) for name, store in stores.items()}
    outlook = foreseen(list(each.values()), setup.plan)
    evaluated = {name: victims.results(outlook) for name, victims in each.items()}
    summary = summarise_stores({name: results for name, (results, _) in evaluated.items()})
    return {"kind": "compare", **summary}, evaluated


def summarise_stores(evaluated: Mapping[str, ProtectionDocument]) -> StoresDocument:
    """One row for each evaluation of the same samples, the best worst case first."""
    first = next(iter(evaluated.values()))
    rows = sorted((_row(name, results) for name, results in evaluated.items()), key=worst_accuracy)
    recipes = whole_recipes(first)
    return {
        "hpcule": __version__,
        "status": first["status"],
        "data": first["data"],
        "seeds": len(victims(recipes[0], "clean")["seeds"]),
        "titles": {recipe["name"]: recipe["title"] for recipe in recipes},
        "measure": recipes[0]["measure"],
        "chance": recipes[0]["chance"],
        "effective": recipes[0]["effective"],
        "clean": {recipe["name"]: victims(recipe, "clean")["mean"] for recipe in recipes},
        "stores": rows,
    }


def worst_accuracy(row: ComparedDocument) -> float:
    """What the most successful victims reach on the store's samples."""
    return row["recipes"][row["worst"]]["protected"]


def protects(results: StoresDocument) -> bool:
    """Whether the best store's worst case is clearly below its clean control."""
    best = results["stores"][0]
    return results["status"] == "done" and results["clean"][best["worst"]] - worst_accuracy(best) >= SAME


def _row(name: str, results: ProtectionDocument) -> ComparedDocument:
    protection = results["protection"]
    recipes: dict[str, MeasureDocument] = {}
    for recipe in whole_recipes(results):
        noise, protected = best_noise(recipe)["mean"], victims(recipe, "protected")["mean"]
        recipes[recipe["name"]] = {"protected": protected, "noise": noise, "left": left(recipe)}
    row: ComparedDocument = {
        "name": name,
        "method": protection["method"],
        "title": protection["title"],
        "preset": protection["preset"],
        "reduced": results["reduced"],
        "epsilon": protection["epsilon"],
        "norm": protection["norm"],
        "worst": worst_recipe(results)["name"],
        "recipes": recipes,
    }
    decibels = results["visibility"]["psnr_db"] if "visibility" in results else None
    return row if decibels is None else {**row, "psnr_db": decibels}
