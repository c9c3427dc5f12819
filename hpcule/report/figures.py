"""The figures for papers of an evaluation, a comparison and a study, from the data of their reports."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from hpcule.evaluation.comparison import StoresDocument, worst_accuracy
from hpcule.evaluation.results import ProtectionDocument, capitalised, measures_of, noun
from hpcule.measure.accuracy import Summary
from hpcule.report.canvas import (
    COLOURS,
    CYCLE,
    MARKERS,
    MOST_PANELS_ABREAST,
    ONE_COLUMN,
    SHAPES,
    TWO_COLUMNS,
    PaperFigure,
    legend_above,
    logarithmic,
    name_axis,
    panel_size,
    panels_of,
)
from hpcule.report.charts import LogLine, Series
from hpcule.report.protection import set_curves
from hpcule.report.study import VARIANT, AccuracyLines, accuracy_lines, by_data, variant_rows
from hpcule.report.study_panels import NoiseScales, target_lines, title_of
from hpcule.study.collect import Row, points
from hpcule.study.grid import name_of
from hpcule.study.targets import TargetSteps, target_steps
from hpcule.victim.kinds import TITLES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class LineLook(TypedDict):
    """Look of a line, in the words of matplotlib."""

    color: str
    linewidth: float
    linestyle: tuple[int, tuple[int, int]]


class CapLook(TypedDict):
    """Look of error bars, in the words of matplotlib."""

    capsize: float
    elinewidth: float


ROW_HEIGHT = 0.24
"""Height in inches of a row of a plot whose vertical axis has names."""
LONG_NAME = 20
"""Number of characters of a name above which a plot of named rows is two columns wide."""
CHANCE: LineLook = {"color": "#666666", "linewidth": 0.8, "linestyle": (0, (4, 3))}
CAPS: CapLook = {"capsize": 1.5, "elinewidth": 0.7}
"""Look of the ends and lines of error bars."""
LOGARITHMIC = 4
"""Ratio of the largest to the smallest value of a factor from which its axis is logarithmic."""
Part = Literal["test", "train"]


def evaluation_figures(results: ProtectionDocument) -> list[PaperFigure]:
    """The headline measure by recipe and training set, and curves over epochs on test and training samples."""
    recipes = results["recipes"]
    size = _size_of_rows([recipe["title"] for recipe in recipes])
    parts: tuple[Part, ...] = ("test", "train")
    return [
        PaperFigure("accuracy", size, partial(_draw_accuracy, results)),
        *(
            PaperFigure(f"curves-{part}", panel_size(len(recipes)), partial(_draw_curves, results, part))
            for part in parts
        ),
    ]


def comparison_figures(results: StoresDocument) -> list[PaperFigure]:
    """The headline measure by store and recipe, with the worst case of every store marked."""
    size = _size_of_rows(["clean control", *(row["name"] for row in results["stores"])])
    return [PaperFigure("worst-case", size, partial(_draw_worst_cases, results))]


def study_figures(rows: Sequence[Row], factors: Sequence[str], noise: Sequence[NoiseScales]) -> list[PaperFigure]:
    """Accuracy over every factor with its controls, variants, steps to target, and gradient noise scales.

    Args:
        rows: of `collect`, at least one.
        factors: names of what varies, but for the seed.
        noise: gradient noise scales; empty where they were not measured.
    """
    found, figures = points(rows, factors), []
    for factor in factors:
        if factor == VARIANT:
            names, summaries = _variants(rows, factors)
            draw = partial(_draw_variants, names, summaries, rows[0]["chance"])
            figures.append(PaperFigure("variants", _size_of_rows(names), draw))
        else:
            lines = accuracy_lines(factor, factors, found)
            draw = partial(_draw_factor, factor, lines)
            figures.append(PaperFigure(f"accuracy-{_file_name(factor)}", panel_size(len(lines)), draw))
    targets: dict[str, list[TargetSteps]] = {}
    for target in target_steps(rows, factors):
        if target_lines(target):
            targets.setdefault(target.who, []).append(target)
    for who, panels in targets.items():
        name = f"steps-to-target-{_file_name(who)}"
        figures.append(PaperFigure(name, panel_size(len(panels)), partial(_draw_targets, panels)))
    for scales in noise:
        name = f"noise-scale-{_file_name(scales.who)}"
        figures.append(PaperFigure(name, panel_size(1), partial(_draw_noise_scales, scales)))
    return figures


def figures_by_data(
    rows: Sequence[Row], factors: Sequence[str], noise: Callable[[Sequence[Row]], Sequence[NoiseScales]]
) -> list[PaperFigure]:
    """The figures of a study, for each data set by itself if there are several; their names then end in its own.

    Args:
        rows: of `collect`, at least one.
        factors: names of what varies, but for the seed.
        noise: from the rows of a data set to their gradient noise scales.
    """
    figures = []
    for number, (data, group, names) in enumerate(by_data(rows, factors), 1):
        # The number separates names that differ only in characters that are replaced.
        ending = f"-{number}-{re.sub(r'[^A-Za-z0-9.]+', '-', data).strip('-.')}" if data else ""
        drawn = study_figures(group, names, noise(group))
        figures += [replace(figure, name=figure.name + ending) for figure in drawn]
    return figures


def _file_name(text: str) -> str:
    return name_of(text).replace(" ", "-")


def _size_of_rows(names: Sequence[str]) -> tuple[float, float]:
    width = TWO_COLUMNS if max(map(len, names)) > LONG_NAME else ONE_COLUMN
    return width, 0.9 + ROW_HEIGHT * len(names)


def _draw_accuracy(results: ProtectionDocument, figure: Figure) -> None:
    recipes = results["recipes"]
    plot = _rows_plot(figure, [recipe["title"] for recipe in recipes], _one_chance(results))
    kinds = list(dict.fromkeys(entry["set"] for recipe in recipes for entry in recipe["sets"]))
    for number, kind in enumerate(kinds):
        entries = [
            (row, entry) for row, recipe in enumerate(recipes) for entry in recipe["sets"] if entry["set"] == kind
        ]
        places = [row + _shift(number, len(kinds)) for row, _ in entries]
        summaries = [
            Summary(entry["mean"], (entry["interval"][0], entry["interval"][1]) if entry["interval"] else None, 1)
            for _, entry in entries
        ]
        for where, (_, entry) in zip(places, entries, strict=True):
            seeds = [100 * victim["last"] for victim in entry["seeds"]]
            plot.plot(seeds, [where] * len(seeds), "|", color=COLOURS[kind], alpha=0.6, markersize=4)
        _dots(plot, kind, TITLES[kind], summaries, places)
    plot.set_xlabel(f"{capitalised(measures_of(results))} on clean test {noun(results)} (%)")
    legend_above(figure, [plot])


def _one_chance(results: ProtectionDocument) -> float | None:
    """Chance level, where it is the same for all recipes."""
    found = {recipe["chance"] for recipe in results["recipes"]}
    return found.pop() if len(found) == 1 else None


def _draw_curves(results: ProtectionDocument, part: Part, figure: Figure) -> None:
    from matplotlib.ticker import MaxNLocator

    recipes = results["recipes"]
    label = "Accuracy on the training set (%)"
    if part == "test":
        label = f"{capitalised(measures_of(results))} on clean test {noun(results)} (%)"
    plots = panels_of(figure, [recipe["title"] for recipe in recipes], "Epoch", label)
    for plot, recipe in zip(plots, recipes, strict=True):
        for curve in set_curves(recipe, part):
            epochs, values = [epoch for epoch, _ in curve.points], [100 * value for _, value in curve.points]
            # One dot is no line.
            marker = MARKERS[curve.kind] if len(epochs) == 1 else ""
            if curve.mean:
                label = TITLES[curve.kind]
                plot.plot(epochs, values, color=COLOURS[curve.kind], linewidth=1.4, marker=marker, label=label)
            else:
                plot.plot(epochs, values, color=COLOURS[curve.kind], linewidth=0.5, alpha=0.5, marker=marker)
        if part == "test":
            plot.axhline(100 * recipe["chance"], label="chance", **CHANCE)
        plot.set_ylim(0, 100)
        plot.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend_above(figure, plots)


def _draw_worst_cases(results: StoresDocument, figure: Figure) -> None:
    stores = results["stores"]
    plot = _rows_plot(figure, ["clean control", *(row["name"] for row in stores)], results["chance"])
    for number, (name, title) in enumerate(results["titles"].items()):
        values = [results["clean"][name], *(row["recipes"][name]["protected"] for row in stores)]
        places = [row + _shift(number, len(results["titles"])) for row in range(len(values))]
        colour, shape = CYCLE[number % len(CYCLE)], SHAPES[(number + number // len(CYCLE)) % len(SHAPES)]
        plot.plot([100 * value for value in values], places, shape, color=colour, label=title)
    worst = [100 * worst_accuracy(row) for row in stores]
    for place, value in enumerate(worst, 1):
        plot.vlines(value, place - 0.4, place + 0.4, color="black", linewidth=1, label="worst case")
    plot.set_xlabel(f"{capitalised(results['measure'])} on clean test samples (%)")
    legend_above(figure, [plot])


def _variants(rows: Sequence[Row], factors: Sequence[str]) -> tuple[list[str], list[Mapping[str, Summary]]]:
    """Names and accuracies by role of the points with a valid seed, those that protect most first."""
    order = [list(row.values) for row in variant_rows(rows, factors)]
    found = [point for point in points(rows, factors) if list(point.factors.values()) in order]
    found.sort(key=lambda point: order.index(list(point.factors.values())))
    names = [", ".join([str(point.factors[VARIANT]), *_others(point.factors)]) for point in found]
    return names, [{str(role): summary for role, summary in point.accuracy.items()} for point in found]


def _others(factors: Mapping[str, object]) -> list[str]:
    varied = {name: value for name, value in factors.items() if name != VARIANT}
    return [title_of(varied)] if varied else []


def _draw_variants(names: Sequence[str], found: Sequence[Mapping[str, Summary]], chance: float, figure: Figure) -> None:
    plot = _rows_plot(figure, names, chance)
    roles = [role for role in TITLES if any(role in summaries for summaries in found)]
    for number, role in enumerate(roles):
        known = [(row, summaries[role]) for row, summaries in enumerate(found) if role in summaries]
        places = [row + _shift(number, len(roles)) for row, _ in known]
        _dots(plot, role, TITLES[role], [summary for _, summary in known], places)
    plot.set_xlabel("Accuracy on clean test samples (%)")
    legend_above(figure, [plot])


def _shift(number: int, of: int) -> float:
    """Place of the mark with this number within a row, so that all marks of the row stand below each other."""
    return 0.66 * ((number + 0.5) / of - 0.5)


def _draw_factor(factor: str, panels: Sequence[AccuracyLines], figure: Figure) -> None:
    labels = [panel.title for panel in panels]
    unit = " (samples)" if factor.endswith(".batch") else ""
    plots = panels_of(figure, labels, f"{name_of(factor).capitalize()}{unit}", "Accuracy on clean test samples (%)")
    for plot, panel in zip(plots, panels, strict=True):
        numbers = _numbers(panel.axis)
        for place, line in enumerate(panel.series):
            shift = place - (len(panel.series) - 1) / 2
            if numbers is None:
                where = [index + 0.1 * shift for index in range(len(panel.axis))]
            else:
                where = [value * 1.025**shift for value in numbers]
            _draw_line(plot, line, where, joined=numbers is not None)
        if panel.chance is not None:
            plot.axhline(100 * panel.chance, label="chance", **CHANCE)
        plot.set_ylim(0, 100)
        if numbers is None:
            room = figure.get_figwidth() / min(len(panels), MOST_PANELS_ABREAST)
            name_axis(plot, [str(value) for value in panel.axis], 0.7 * room)
        else:
            if max(numbers) >= LOGARITHMIC * min(numbers):
                plot.set_xscale("log", base=2)
            plot.set_xticks(numbers, [f"{value:g}" for value in numbers], minor=False)
            plot.minorticks_off()
    legend_above(figure, plots)


def _numbers(axis: Sequence[Any]) -> list[float] | None:
    """The values of a factor as positive numbers, or None if they are names."""
    if not all(isinstance(value, int | float) and not isinstance(value, bool) and value > 0 for value in axis):
        return None
    return [float(value) for value in axis]


def _draw_line(plot: Axes, line: Series, places: Sequence[float], *, joined: bool) -> None:
    drawn = [
        (x, Summary(value, (interval[0], interval[1]) if interval else None, 1))
        for x, value, interval in zip(places, line.values, line.intervals, strict=True)
        if value is not None
    ]
    plot.errorbar(
        [x for x, _ in drawn],
        [100 * summary.mean for _, summary in drawn],
        yerr=_errors([summary for _, summary in drawn]),
        label=line.label,
        color=COLOURS[line.kind],
        marker=MARKERS[line.kind],
        linestyle="-" if joined else "",
        **CAPS,
    )


def _draw_targets(panels: Sequence[TargetSteps], figure: Figure) -> None:
    labels = [title_of(panel.where) for panel in panels]
    factor = name_of(panels[0].factor).capitalize()
    plots = panels_of(figure, labels, f"{factor} (samples)", "Steps to target")
    for plot, panel in zip(plots, panels, strict=True):
        _draw_log_lines(plot, target_lines(panel), {"steps": "mean and range over seeds", "fit": "fit"})
        sizes = sorted(panel.steps)
        plot.set_xscale("log", base=2)
        plot.set_xticks(sizes, [f"{size:g}" for size in sizes])
        plot.minorticks_off()
    legend_above(figure, plots)


def _draw_noise_scales(scales: NoiseScales, figure: Figure) -> None:
    (plot,) = panels_of(figure, [scales.who], "Step", "Gradient noise scale (samples)")
    _draw_log_lines(plot, scales.lines, {line.label: f"{scales.batch} {line.label}" for line in scales.lines})
    plot.set_xscale("log")
    legend_above(figure, [plot])


def _draw_log_lines(plot: Axes, lines: Sequence[LogLine], labels: Mapping[str, str]) -> None:
    for line in lines:
        colour = CYCLE[line.style % len(CYCLE)]
        across, values = [mark.x for mark in line.marks], [mark.y for mark in line.marks]
        if line.curve:
            plot.plot(across, values, color=colour, linestyle="--", label=labels[line.label])
            continue
        below = [0.0 if mark.low is None else max(0.0, mark.y - mark.low) for mark in line.marks]
        above = [0.0 if mark.high is None else max(0.0, mark.high - mark.y) for mark in line.marks]
        shape = SHAPES[line.style % len(SHAPES)]
        label = labels[line.label]
        plot.errorbar(across, values, yerr=[below, above], label=label, color=colour, marker=shape, **CAPS)
    marks = [mark for line in lines for mark in line.marks]
    logarithmic(plot, [bound for mark in marks for bound in (mark.y, mark.low, mark.high) if bound])


def _rows_plot(figure: Figure, names: Sequence[str], chance: float | None) -> Axes:
    """A plot with a row for each name, the first at the top, over a measure in percent."""
    plot = figure.subplots()
    plot.set_yticks(range(len(names)), names)
    plot.set_ylim(len(names) - 0.5, -0.5)
    plot.set_xlim(0, 100)
    plot.tick_params(axis="y", length=0)
    if chance is not None:
        plot.axvline(100 * chance, label="chance", **CHANCE)
    for row in range(1, len(names)):
        plot.axhline(row - 0.5, color="#DDDDDD", linewidth=0.4)
    return plot


def _dots(plot: Axes, kind: str, label: str, summaries: Sequence[Summary], places: Sequence[float]) -> None:
    """Means in percent with their intervals, along the horizontal axis."""
    plot.errorbar(
        [100 * summary.mean for summary in summaries],
        places,
        xerr=_errors(summaries),
        label=label,
        color=COLOURS[kind],
        marker=MARKERS[kind],
        linestyle="",
        **CAPS,
    )


def _errors(summaries: Sequence[Summary]) -> list[list[float]]:
    """Distances in percentage points from the means down and up to the ends of the intervals; 0 without an interval."""
    bounds = [summary.interval or (summary.mean, summary.mean) for summary in summaries]
    return [
        [max(0.0, 100 * (summary.mean - low)) for summary, (low, _) in zip(summaries, bounds, strict=True)],
        [max(0.0, 100 * (high - summary.mean)) for summary, (_, high) in zip(summaries, bounds, strict=True)],
    ]
