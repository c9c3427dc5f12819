"""Accuracy over the share of the samples that is protected, where mixtures were trained on."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from hpcule.evaluation.results import Recipe, Results, SetName, VictimSet, percent, victims
from hpcule.report.charts import Series, series_chart
from hpcule.victim.recipe import read_recipe, without_mixture


def mixtures(results: Results) -> list[Markup]:
    """A chart for every recipe that was trained on mixtures and also on protected samples alone."""
    return [
        Markup(_chart(recipe, mixed))
        for recipe in results["recipes"]
        if (mixed := [other for other in results["recipes"] if _is_mixture_of(other["name"], recipe["name"])])
    ]


def _is_mixture_of(name: str, whole: str) -> bool:
    return read_recipe(name).mix is not None and without_mixture(name) == whole


def _chart(recipe: Recipe, mixed: Sequence[Recipe]) -> str:
    mixed = sorted(mixed, key=lambda other: other["gain"]["share"])
    axis = ["0%", *(f"{100 * other['gain']['share']:g}%" for other in mixed), "100%"]
    clean, parts = victims(recipe, "clean"), [victims(one, "part") for one in mixed]
    protected = [victims(one, "protected") for one in (*mixed, recipe)]
    series = [
        _series("clean", "all clean", [clean] * len(axis)),
        _series("protected", "mixture", [clean, *protected]),
        _series("part", "its clean part alone", [clean, *parts, None]),
    ]
    described = "; ".join(
        f"{line.label} {', '.join('none' if value is None else percent(value) for value in line.values)}"
        for line in series
    )
    title = f"Accuracy over the protected share, {recipe['title']}"
    return series_chart(title, f"{', '.join(axis)}: {described}.", axis, series, None)


def _series(kind: SetName, label: str, sets: Sequence[VictimSet | None]) -> Series:
    values = [None if entry is None else entry["mean"] for entry in sets]
    return Series(kind, label, values, [None if entry is None else entry["interval"] for entry in sets])
