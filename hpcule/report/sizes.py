"""What attackers reach over the size at which they read images: a chart for each recipe that was tried at several."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace

from markupsafe import Markup

from hpcule.evaluation.results import ProtectionDocument, RecipeDocument, capitalised, percent, victims
from hpcule.report.charts import Series, series_chart
from hpcule.victim.countermeasures.table import Countermeasures
from hpcule.victim.kinds import SHORT_TITLES, Kind
from hpcule.victim.recipe import Recipe

FEWEST = 3
"""Number of sizes from which on a recipe has a chart."""
SHOWN: tuple[Kind, ...] = ("clean", "noise", "protected")


def size_charts(results: ProtectionDocument) -> list[tuple[str, Markup]]:
    """A title and a chart for each recipe that was tried at three or more sizes."""
    width = results["data"]["shape"][2]
    found = defaultdict[Recipe, dict[int, RecipeDocument]](dict)
    for document in results["recipes"]:
        recipe = Recipe.parse(document["name"])
        size = recipe.countermeasures.named("size")
        pixels = width if size is None else int(size.strength or width)
        found[_at_own_size(recipe)][pixels] = document
    return [(recipe.title, Markup(_chart(recipe, sizes))) for recipe, sizes in found.items() if len(sizes) >= FEWEST]


def _at_own_size(recipe: Recipe) -> Recipe:
    steps = recipe.countermeasures.steps
    return replace(recipe, countermeasures=Countermeasures(tuple(step for step in steps if step.name != "size")))


def _chart(recipe: Recipe, sizes: Mapping[int, RecipeDocument]) -> str:
    ordered = [sizes[pixels] for pixels in sorted(sizes)]
    series = [_series(kind, ordered) for kind in SHOWN]
    described = "; ".join(f"{line.label} {', '.join(percent(value or 0) for value in line.values)}" for line in series)
    title = f"{capitalised(ordered[0]['measure'])} over the width in pixels at which images are read, {recipe.title}"
    axis = [str(pixels) for pixels in sorted(sizes)]
    return series_chart(title, f"{', '.join(axis)} pixels: {described}.", axis, series, ordered[0]["chance"])


def _series(kind: Kind, recipes: list[RecipeDocument]) -> Series:
    sets = [victims(recipe, kind) for recipe in recipes]
    return Series(kind, SHORT_TITLES[kind], [entry["mean"] for entry in sets], [entry["interval"] for entry in sets])
