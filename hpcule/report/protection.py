"""The results as one self-contained HTML page."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Literal

import yaml
from markupsafe import Markup

from hpcule.config.tree import dump_yaml, to_tree
from hpcule.evaluation.claims import claims, grade, verdict, warnings
from hpcule.evaluation.distance import Row, distance, learnt_features, linear_victims, structure
from hpcule.evaluation.pictures import Pictures, gain, thinning, triplets
from hpcule.evaluation.ranked import ranked
from hpcule.evaluation.results import (
    PerturbationDocument,
    ProtectionDocument,
    RecipeDocument,
    SetDocument,
    VictimDocument,
    capitalised,
    left,
    measures_of,
    noun,
    percent,
    percent_range,
    victims,
    whole_recipes,
    worst_recipe,
)
from hpcule.evaluation.suites import EvaluateConfig
from hpcule.probes.documents import ProbeDocument
from hpcule.report.charts import MOST_WIDE_LABELS, Bar, Curve, Series, bar_chart, line_chart, series_chart
from hpcule.report.page import environment
from hpcule.report.probes import panels
from hpcule.report.sizes import size_charts
from hpcule.store.files import private_directory, to_json, write_atomically
from hpcule.victim.kinds import SHORT_TITLES, TITLES, Kind
from hpcule.victim.recipe import Recipe

MOST_CLASS_NAMES = 12


def write_evaluation(
    out: Path,
    config: EvaluateConfig,
    results: ProtectionDocument,
    pictures: Pictures,
    measures: Sequence[ProbeDocument] = (),
) -> None:
    """Write results.json, config.yaml and report.html of an evaluation into a private folder."""
    private_directory(out)
    write_atomically(out / "results.json", to_json(results))
    write_atomically(out / "config.yaml", dump_yaml(to_tree(config)).encode())
    write_report(results, pictures, out / "report.html", measures)


def write_report(
    results: ProtectionDocument, pictures: Pictures, path: Path, measures: Sequence[ProbeDocument] = ()
) -> None:
    """Write the report, readable by its owner alone; it needs no network, no script and no other file.

    Args:
        results: the content of results.json.
        pictures: samples to show, at least one.
        path: the HTML file; an older one is replaced.
        measures: of the same store, to be shown as panels.

    Raises:
        StoreError: it cannot be written.
    """
    write_atomically(path, render(results, pictures, measures).encode())


def render(results: ProtectionDocument, pictures: Pictures, measures: Sequence[ProbeDocument] = ()) -> str:
    """The page as text."""
    # Recordings are shown as pictures of 8 bits.
    levels = 255 if "rate" in results["data"] else results["protection"]["levels"]
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            results=results,
            noun=noun(results),
            grade=grade(results),
            verdict=verdict(results),
            worst=worst_recipe(results),
            tiles=_tiles(results),
            facts=_facts(results),
            triplets=list(triplets(pictures, levels)),
            gain=gain(pictures.delta, levels),
            thinning=thinning(*pictures.clean.shape[2:]),
            matrix=[_matrix_row(recipe) for recipe in whole_recipes(results)],
            matrix_sets=[entry["title"] for entry in whole_recipes(results)[0]["sets"]],
            measures=measures_of(results),
            bars=[Markup(_bars(recipe, results)) for recipe in results["recipes"]],
            curves=[
                Markup(_curves(recipe, part, results)) for recipe in results["recipes"] for part in ("test", "train")
            ],
            ranked=ranked(results),
            distance=distance(results),
            structure=structure(results),
            linear=linear_victims(results),
            features=learnt_features(results),
            mixtures=mixtures(results),
            sizes=size_charts(results),
            panels=panels(measures),
            claims=claims(results),
            warnings=warnings(results),
            settings=_settings(results),
        )
    )


@dataclass(frozen=True)
class MatrixRow:
    """A recipe at a glance: its measure on every set, and what share of what can be learnt beyond chance is left."""

    title: str
    accuracies: list[tuple[Kind, float]]
    left: float | None
    """Share of what the clean control learns beyond chance; None if it did not learn."""


def _matrix_row(recipe: RecipeDocument) -> MatrixRow:
    means = {entry["set"]: entry["mean"] for entry in recipe["sets"]}
    return MatrixRow(recipe["title"], list(means.items()), left(recipe))


def _tiles(results: ProtectionDocument) -> list[tuple[str, str, str]]:
    """The worst case in four numbers: class in the style sheet, name, value."""
    recipe = worst_recipe(results)
    found = [(entry["set"], TITLES[entry["set"]], percent(entry["mean"])) for entry in recipe["sets"]]
    return [*found, ("level", "chance", percent(recipe["chance"]))]


def _facts(results: ProtectionDocument) -> list[Row]:
    """Facts on the data, the method and the budget."""
    protection, data = results["protection"], results["data"]
    facts = protection["facts"]
    names = data["class_names"]
    listed = ", ".join(names[:MOST_CLASS_NAMES])
    if len(names) > MOST_CLASS_NAMES:
        listed += f" and {len(names) - MOST_CLASS_NAMES} more"
    return [
        Row(
            "Data",
            data["name"],
            f"{protection['n']:,} {noun(results)} protected, {data['test']:,} clean ones for testing",
        ),
        _size(results),
        Row("Classes", str(data["classes"]), listed),
        Row("Method", protection["title"], facts.get("paper", "")),
        Row("Budget", *_budget(protection)),
        Row(
            "One perturbation for each",
            protection["unit"],
            f"{protection['groups']:,} of them" if protection["groups"] else "",
        ),
        Row(
            "Preset",
            protection["preset"],
            "reduced settings, for a first try"
            if results["reduced"]
            else "settings of the paper unless changed; all are listed at the end",
        ),
        Row("Designed for", f"{facts['data']}, {facts['task']}", f"intent: {facts['intent']}"),
        Row(
            "Needs",
            _needs(facts["needs_labels"], facts["needs_surrogate"]),
            "" if facts["bounded"] else "the perturbation is not bounded",
        ),
        Row("Withstands, as its authors claim", facts["claimed"]),
        Row("Measured with hpcule", "; ".join(facts["measured"]) or "nothing measured yet"),
    ]


def _size(results: ProtectionDocument) -> Row:
    data = results["data"]
    channels, height, width = data["shape"]
    if "rate" in data:
        seconds, padded = f"{width / data['rate']:.2f} s", "shorter recordings are padded with silence for training"
        return Row("Recordings", seconds, f"{data['rate']:,} samples a second; {padded}")
    if "depth" in data:
        depth = data["depth"]
        return Row("Volumes", f"{width} × {height // depth} × {depth}", "voxels, slices last")
    kind = "Tiles of images" if "tiles" in data else "Images"
    return Row(kind, f"{width} × {height}", f"{channels} {'channels' if channels > 1 else 'channel'}")


def _budget(protection: PerturbationDocument) -> tuple[str, str]:
    epsilon, norm, levels = protection["epsilon"], protection["norm"], protection["levels"]
    if free := protection.get("free_pixels", 0):
        return (
            f"{epsilon:g} of {levels} levels",
            f"the largest change of any value, except in {free} pixel(s)",
        )
    if norm == "linf":
        return f"{epsilon:g} of {levels} levels", "the largest change of any value of a sample (L-infinity)"
    if norm == "l0":
        return f"{epsilon:g} pixel(s)", "the largest number of pixels of an image that may change, by any amount (L0)"
    return f"{epsilon:g} levels", f"the largest Euclidean norm of the change; {levels} levels are 1"


def _needs(labels: bool, surrogate: bool) -> str:
    needed = [name for name, needs in (("labels", labels), ("a surrogate network", surrogate)) if needs]
    return " and ".join(needed) or "neither labels nor a surrogate network"


def _bars(recipe: RecipeDocument, results: ProtectionDocument) -> str:
    chance, measure = recipe["chance"], recipe["measure"]
    bars = [
        Bar(
            kind=entry["set"],
            label=(TITLES if len(recipe["sets"]) <= MOST_WIDE_LABELS else SHORT_TITLES)[entry["set"]],
            value=entry["mean"],
            interval=entry["interval"],
            dots=[victim["last"] for victim in entry["seeds"]],
        )
        for entry in recipe["sets"]
    ]
    values = ", ".join(
        f"{entry['title']} {percent(entry['mean'])} ({percent_range(entry['interval'])})" for entry in recipe["sets"]
    )
    return bar_chart(
        f"{capitalised(measure)} on clean test {noun(results)}, {recipe['title']}",
        f"{values}; chance {percent(chance)}.",
        bars,
        chance,
    )


def set_curves(recipe: RecipeDocument, part: Literal["test", "train"]) -> list[Curve]:
    """The measure over epochs of a recipe's victims: for each training set, every seed and the mean over the seeds."""
    curves = []
    for entry in recipe["sets"]:
        curves += [Curve(entry["set"], points) for points in _points(entry["seeds"], part)]
        curves.append(Curve(entry["set"], _mean_points(entry["seeds"], part), mean=True))
    return curves


def _curves(recipe: RecipeDocument, part: Literal["test", "train"], results: ProtectionDocument) -> str:
    curves = set_curves(recipe, part)
    ends = ", ".join(f"{TITLES[curve.kind]} {percent(curve.points[-1][1])}" for curve in curves if curve.mean)
    where, chance = "the training set as published", None
    if part == "test":
        where, chance = f"clean test {noun(results)}", recipe["chance"]
    measure = recipe["measure"] if part == "test" else "accuracy"
    return line_chart(
        f"{capitalised(measure)} on {where} over epochs, {recipe['title']}",
        f"After the last epoch: {ends}.",
        curves,
        chance,
    )


def _points(seeds: list[VictimDocument], part: Literal["test", "train"]) -> list[list[tuple[float, float]]]:
    return [[(epoch["epoch"], epoch[part]) for epoch in victim["curve"]] for victim in seeds]


def _mean_points(seeds: list[VictimDocument], part: Literal["test", "train"]) -> list[tuple[float, float]]:
    """Mean over the seeds, at the epochs that all of them have."""
    values = defaultdict(list)
    for line in _points(seeds, part):
        for epoch, value in line:
            values[epoch].append(value)
    return [(epoch, fmean(found)) for epoch, found in sorted(values.items()) if len(found) == len(seeds)]


def mixtures(results: ProtectionDocument) -> list[Markup]:
    """A chart for every recipe that was trained on mixtures and also on protected samples alone."""
    return [
        Markup(_mixture_chart(recipe, mixed))
        for recipe in results["recipes"]
        if (mixed := [other for other in results["recipes"] if _is_mixture_of(other, recipe)])
    ]


def _is_mixture_of(mixed: RecipeDocument, whole: RecipeDocument) -> bool:
    recipe = Recipe.parse(mixed["name"])
    return recipe.countermeasures.mix is not None and recipe.whole == Recipe.parse(whole["name"])


def _mixture_chart(recipe: RecipeDocument, mixed: Sequence[RecipeDocument]) -> str:
    mixed = sorted(mixed, key=lambda other: other["gain"]["share"])
    axis = ["0%", *(f"{100 * other['gain']['share']:g}%" for other in mixed), "100%"]
    clean, parts = victims(recipe, "clean"), [victims(one, "part") for one in mixed]
    protected = [victims(one, "protected") for one in (*mixed, recipe)]
    series = [
        _mixture_series("clean", "all clean", [clean] * len(axis)),
        _mixture_series("protected", "mixture", [clean, *protected]),
        _mixture_series("part", "its clean part alone", [clean, *parts, None]),
    ]
    described = "; ".join(
        f"{line.label} {', '.join('none' if value is None else percent(value) for value in line.values)}"
        for line in series
    )
    title = f"{capitalised(recipe['measure'])} over the protected share, {recipe['title']}"
    return series_chart(title, f"{', '.join(axis)}: {described}.", axis, series, None)


def _mixture_series(kind: Kind, label: str, sets: Sequence[SetDocument | None]) -> Series:
    values = [None if entry is None else entry["mean"] for entry in sets]
    return Series(kind, label, values, [None if entry is None else entry["interval"] for entry in sets])


def _settings(results: ProtectionDocument) -> list[tuple[str, str]]:
    """The settings of the protection and of every recipe, as YAML."""
    documents = [("protection", results["protection"]["settings"])]
    documents += [(f"recipe {recipe['name']}", recipe["settings"]) for recipe in results["recipes"]]
    return [(name, yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True)) for name, settings in documents]
