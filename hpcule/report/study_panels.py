"""Charts of a study's report other than accuracy: steps to target and gradient noise; and the cost of crafting."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from markupsafe import Markup

from hpcule.report.charts import ChartMark, LogLine, log_chart
from hpcule.study.collect import Row
from hpcule.study.critical_batch import steps_to_target
from hpcule.study.documents import ItemDocument
from hpcule.study.grid import Factors, StudyGrid, name_of
from hpcule.study.targets import TargetSteps, target_steps
from hpcule.victim.kinds import Kind

Result = Callable[[str], ItemDocument | None]
"""Function from the key of a craft or victim to its result."""


@dataclass(frozen=True)
class Panel:
    """A chart: its title, its SVG, and a sentence on what it shows."""

    title: str
    chart: Markup
    note: str = ""


@dataclass(frozen=True)
class Cost:
    """Cost of the crafts of one batch size, on average over the crafts."""

    batch: int
    crafts: int
    seconds: float
    worker_hours: float
    samples_a_second: float
    """Rate at which samples pass the surrogate or encoder in training."""
    peak_mebibytes: float


def title_of(where: Factors) -> str:
    """A point of a study in words: factor and value, separated by commas."""
    return ", ".join(f"{name_of(name)} {value}" for name, value in where.items())


def target_panels(rows: Sequence[Row], factors: Sequence[str]) -> list[Panel]:
    """Steps to target over batch size, with the fitted curve where there is one."""
    panels = []
    for found in target_steps(rows, factors):
        title = ", ".join(filter(None, [found.who, title_of(found.where)]))
        lines = target_lines(found)
        if lines:
            chart = log_chart(title, f"Steps to target over {name_of(found.factor)}.", "batch", lines)
            panels.append(Panel(title, Markup(chart), found.sentence()))
    return panels


def target_lines(found: TargetSteps) -> list[LogLine]:
    """Geometric means of the steps over seeds, with their range, and the fitted curve; empty if no seed got there."""
    marks = []
    for batch, seeds in found.steps.items():
        reached = [steps for steps in seeds if steps is not None]
        if reached:
            marks.append(ChartMark(batch, math.exp(fmean(map(math.log, reached))), min(reached), max(reached)))
    curve = found.curve
    lines = [LogLine("steps", 0, marks)] if marks else []
    if curve.minimum_steps is not None and curve.critical_batch is not None:
        fitted = steps_to_target([mark.x for mark in marks], curve.minimum_steps, curve.critical_batch)
        lines.append(
            LogLine("fit", 1, [ChartMark(m.x, float(y)) for m, y in zip(marks, fitted, strict=True)], curve=True)
        )
    return lines


@dataclass(frozen=True)
class NoiseScales:
    """Gradient noise scales of one kind of training, by quarter of the run: a line for each batch size.

    Marks are geometric means over seeds and clusters with their range; quarters that are not identifiable are counted
    in `missing` and left out.
    """

    who: str
    batch: str
    lines: list[LogLine]
    missing: int
    quarters: int


def measured_noise_scales(rows: Sequence[Row], grid: StudyGrid, result: Result) -> list[NoiseScales]:
    """The noise scales that were measured while crafting, and of victims on protected and on clean samples."""
    crafts = {(row["craft"], row["craft_batch"]) for row in rows}
    found = [_noise_scales("while crafting", "craft batch", crafts, result)]
    kinds: list[tuple[Kind, str]] = [("protected", "of victims on protected samples"), ("clean", "of clean controls")]
    for kind, who in kinds:
        keys = {(grid.cells[row["cell"]].victims[kind], row[f"{kind}_batch"]) for row in rows}
        found.append(_noise_scales(who, "victim batch", keys, result))
    return [scales for scales in found if scales.lines]


def _noise_scales(who: str, batch_name: str, keys: set[tuple[str, int]], result: Result) -> NoiseScales:
    values: dict[int, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    missing = quarters = 0
    for key, batch in keys:
        found = result(key)
        for quarter in found["noise_scales"][1:] if found else []:
            quarters += 1
            if quarter["noise_scale"] is None:
                missing += 1
            else:
                middle = (quarter["first_step"] + quarter["last_step"]) / 2 + 1
                values[batch][middle].append(quarter["noise_scale"])
    lines = []
    for number, batch in enumerate(sorted(values)):
        marks = [
            ChartMark(middle, math.exp(fmean(map(math.log, known))), min(known), max(known))
            for middle, known in sorted(values[batch].items())
        ]
        lines.append(LogLine(str(batch), number, marks))
    return NoiseScales(who, batch_name, lines, missing, quarters)


def noise_panels(found: Sequence[NoiseScales]) -> list[Panel]:
    """A chart for each kind of training."""
    panels = []
    for scales in found:
        note = ""
        if scales.missing:
            note = f"{scales.missing} of {scales.quarters} quarters were not identifiable and are left out."
        title, what = f"Gradient noise scale {scales.who}", f"Noise scale in samples over steps, by {scales.batch}."
        chart = Markup(log_chart(title, what, "step", scales.lines))
        panels.append(Panel(f"{scales.who}, by {scales.batch}", chart, note))
    return panels


def costs(rows: Sequence[Row]) -> list[Cost]:
    """Cost of crafting by batch size; a craft that several cells share counts once."""
    crafts = {row["craft"]: row for row in rows}
    by_batch: dict[int, list[Row]] = defaultdict(list)
    for row in crafts.values():
        if row["craft_batch"] is not None:
            by_batch[row["craft_batch"]].append(row)
    found = []
    for batch, group in sorted(by_batch.items()):
        seconds = fmean(row["craft_seconds"] for row in group)
        hours = fmean(row["craft_worker_hours"] for row in group)
        speed = fmean(row["craft_trained_samples"] / max(1e-9, row["craft_seconds"]) for row in group)
        peak = max(row["peak_memory_mebibytes"] for row in group)
        found.append(Cost(batch, len(group), seconds, hours, speed, peak))
    return found
