"""A study as one self-contained HTML page: accuracy over each factor with its controls, and all numbers."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from markupsafe import Markup

from hpcule.config.tree import dump_yaml, to_tree
from hpcule.config.version import __version__
from hpcule.report.charts import Series, series_chart
from hpcule.report.page import environment
from hpcule.report.study_panels import (
    Cost,
    Panel,
    Result,
    costs,
    measured_noise_scales,
    noise_panels,
    target_panels,
    title_of,
)
from hpcule.store.files import write_atomically
from hpcule.study.collect import RANDOM, Point, Row, grouped, points
from hpcule.study.config import DATA, StudyConfig
from hpcule.study.data_sets import data_set_results
from hpcule.study.effects import Effect, effects, sentences
from hpcule.study.grid import StudyGrid, name_of
from hpcule.study.paired import PairedDifference, holm
from hpcule.victim.kinds import TITLES, Kind

VARIANT = "variant"
SHOWN: tuple[Kind, ...] = ("clean", "noise", "protected")


@dataclass(frozen=True)
class VariantRow:
    """One point, over its valid seeds; accuracies in [0, 1].

    Attributes:
        values: of the factors.
        accuracies: mean by role, on clean test samples.
        trained: mean on the protected training set as published: low where no shortcut was found yet.
        below: clean control minus protected.
        seconds: of the longest craft; one that was interrupted counts its last part alone.
        peak: MiB of the largest worker.
    """

    values: Sequence[Any]
    accuracies: Sequence[tuple[Kind, float]]
    trained: float
    below: float
    seconds: float
    peak: float


@dataclass(frozen=True)
class Part:
    """What the page shows of one data set.

    Attributes:
        data: name of the data set; empty for a study of one.
        factors: names of what varies.
        variants: one row a point, those that protect most first; empty without variants.
        sections: accuracy over each factor.
        targets: steps to the target.
        noise: gradient noise scales, by batch size; empty with variants, of which they would say little.
        points: with the values of their factors.
        effects: of doubling a factor.
        costs: of crafting by batch size; empty with variants.
    """

    data: str
    factors: Sequence[str]
    variants: Sequence[VariantRow]
    sections: Sequence[tuple[str, Sequence[Panel]]]
    targets: Sequence[Panel]
    noise: Sequence[Panel]
    points: Sequence[tuple[Point, Sequence[Any]]]
    effects: Sequence[Effect]
    costs: Sequence[Cost]


def factor_names(config: StudyConfig) -> list[str]:
    """Names of the factors that vary, without the seed; `rate` alone for a study of a single cell."""
    rates = {"rate": config.rates, "victim_rate": config.victim_rates}
    varied = {VARIANT: config.variants, **config.factors, **rates, "recipe": config.recipes}
    return [name for name, values in varied.items() if len(values) > 1] or ["rate"]


def by_data(rows: Sequence[Row], factors: Sequence[str]) -> list[tuple[str, Sequence[Row], list[str]]]:
    """The name of each data set, its rows, and what varies on it; a single one, without a name, where `data` does not
    vary."""
    if DATA not in factors:
        return [("", rows, list(factors))]
    others = [name for name in factors if name != DATA] or ["rate"]
    return [(group[0][DATA], group, others) for group in grouped(rows, [DATA])]


def write_study_report(
    config: StudyConfig, grid: StudyGrid, rows: Sequence[Row], result: Result, path: Path
) -> list[str]:
    """Write the page, which needs no network, no script and no other file; returns its answers in plain words."""
    factors = factor_names(config)
    found = points(rows, factors)
    parts = [_part(data, group, names, grid, result) for data, group, names in by_data(rows, factors)]
    several = DATA in factors
    findings = [*noise_sentences(found), *_effect_sentences(parts), *grid.notes]
    page = (
        environment()
        .get_template("study.html.j2")
        .render(
            config=config,
            version=__version__,
            cells=len(grid.cells),
            finished=len(rows),
            crafts=len(grid.crafts),
            victims=len(grid.victims),
            invalid=sum(point.invalid for point in found),
            leads=[
                (kind, f"{TITLES[kind]}, minus protected") for kind in RANDOM if any(kind in p.leads for p in found)
            ],
            roles=[(kind, title) for kind, title in TITLES.items() if any(kind in point.accuracy for point in found)],
            variant_headings=[TITLES[role] for role in SHOWN],
            answers=findings,
            measures=list(dict.fromkeys(point.measure for point in found)),
            parts=parts,
            name_of=name_of,
            title_of=title_of,
            data_headings=[DATA, *([VARIANT] if VARIANT in factors else [])],
            data_results=data_set_results(rows, [VARIANT] if VARIANT in factors else []) if several else [],
            settings=dump_yaml(to_tree(config)),
        )
    )
    write_atomically(path, page.encode())
    return findings


def _part(data: str, rows: Sequence[Row], factors: Sequence[str], grid: StudyGrid, result: Result) -> Part:
    found = points(rows, factors)
    varied = VARIANT in factors
    return Part(
        data=data,
        factors=[name_of(name) for name in factors],
        variants=variant_rows(rows, factors) if varied else [],
        sections=[(name_of(name), _panels(name, factors, found)) for name in factors if name != VARIANT],
        targets=target_panels(rows, factors),
        noise=[] if varied else noise_panels(measured_noise_scales(rows, grid, result)),
        points=[(point, [point.factors[name] for name in factors]) for point in found],
        effects=effects(rows, factors),
        costs=[] if varied else costs(rows),
    )


def _effect_sentences(parts: Sequence[Part]) -> list[str]:
    return [f"{part.data}: {text}" if part.data else text for part in parts for text in sentences(part.effects)]


def noise_sentences(found: Sequence[Point]) -> list[str]:
    """Sentences on whether the method beats random patterns that are shared by the same samples, and at which points.

    Points that stand for the same crafts and victims count once.
    """
    same_crafts: dict[Any, list[Point]] = defaultdict(list)
    for point in found:
        same_crafts[point.measured].append(point)
    found = [same[0] for same in same_crafts.values()]
    text = [sentence for role in RANDOM for sentence in _against(role, found, same_crafts)]
    leads = [lead for point in found for lead in point.leads.values() if lead.interval]
    if not leads:
        return ["With a single seed there are no confidence intervals, so this study supports no conclusion."]
    edges = sum(point.at_edge for point in found)
    if edges:
        tuned = (
            f"In {edges} crafts the tuned learning rate is the smallest or largest that was tried: widen `rate_grid`."
        )
        text.append(tuned)
    return [*text, _power(leads)]


def _against(role: Kind, found: Sequence[Point], same_crafts: Mapping[Any, Sequence[Point]]) -> list[str]:
    compared = [(point, lead) for point in found if (lead := point.leads.get(role)) and lead.interval]
    better = [(point, lead) for point, lead in compared if lead.side > 0]
    worse = sum(lead.side < 0 for _, lead in compared)
    if not compared:
        return []
    return [
        f"At {len(better)} of {len(compared)} points the method lowers the victims' accuracy more than {RANDOM[role]} "
        f"(95% confidence interval of the paired difference over seeds above 0), at {worse} it lowers it less, and at "
        f"{len(compared) - len(better) - worse} the interval includes 0.",
        *(f"Better: {_title(same_crafts[point.measured])}: {_points(lead)}." for point, lead in better),
    ]


def _title(same: Sequence[Point]) -> str:
    others = f" (and {len(same) - 1} other settings with the same crafts)" if len(same) > 1 else ""
    return f"{title_of(same[0].factors)}{others}"


def _power(leads: Sequence[PairedDifference]) -> str:
    """Sentences on what the numbers of points and of seeds allow to conclude."""
    seeds = min(lead.n for lead in leads)
    seen = [lead.detectable for lead in leads if lead.detectable is not None]
    missed = max(seen, default=0)
    # The t quantile of two seeds is 12.7.
    what = f"differences below {100 * missed:.0f} points" if missed < 1 else "even the largest difference"
    text = f"With {seeds} seeds per point, {what} could have been missed. "
    smallest = max(lead.smallest_p for lead in leads)
    if smallest > 0.05:
        return text + f"With this number of seeds the p-value of the sign-flip test cannot fall below {smallest:g}."
    left = sum(p < 0.05 for p in holm([lead.p_value for lead in leads]))
    where = f"at {left} of {len(leads)} points after Holm's correction"
    return f"{text}The p-value of the sign-flip test is below 0.05 {where}."


def _points(lead: PairedDifference) -> str:
    assert lead.interval is not None
    low, high = lead.interval
    return f"{100 * lead.mean:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f})"


def _panels(name: str, factors: Sequence[str], found: Sequence[Point]) -> list[Panel]:
    panels = []
    for lines in accuracy_lines(name, factors, found):
        what = lines.measures[:1].upper() + lines.measures[1:]
        description = f"{what} on clean test samples over {name_of(name)}, {lines.title}."
        axis = [str(value) for value in lines.axis]
        chart = series_chart(f"{name_of(name)}, {lines.title}", description, axis, lines.series, lines.chance)
        panels.append(Panel(lines.title, Markup(chart)))
    return panels


@dataclass(frozen=True)
class AccuracyLines:
    """Accuracy, or the measures of other tasks, over the values of one factor, at one value of everything else.

    Attributes:
        title: the values of everything else.
        axis: values of the factor.
        series: one for each role.
        measures: what the series are values of.
        chance: what guessing reaches; None where that is not the same for all values of the factor.
    """

    title: str
    axis: Sequence[Any]
    series: Sequence[Series]
    measures: str
    chance: float | None


def accuracy_lines(name: str, factors: Sequence[str], found: Sequence[Point]) -> list[AccuracyLines]:
    """Means and intervals over the factor called `name`, for every combination of the others."""
    others = [other for other in factors if other != name]
    axis = list(dict.fromkeys(point.factors[name] for point in found))
    levels = [list(dict.fromkeys(point.factors[other] for point in found)) for other in others]
    lines = []
    for combination in itertools.product(*levels):
        fixed = dict(zip(others, combination, strict=True))
        chosen = {point.factors[name]: point for point in found if fixed.items() <= point.factors.items()}
        series = [line for role in TITLES if (line := _series(role, axis, chosen))]
        measures = ", ".join(dict.fromkeys(point.measure for point in chosen.values()))
        chances = {point.chance for point in chosen.values()}
        chance = chances.pop() if len(chances) == 1 else None
        lines.append(AccuracyLines(title_of(fixed) or "all cells", axis, series, measures, chance))
    return lines


def _series(role: Kind, axis: Sequence[Any], chosen: Mapping[Any, Point]) -> Series | None:
    found = [chosen[value].accuracy.get(role) if value in chosen else None for value in axis]
    if not any(found):
        return None
    means = [summary.mean if summary else None for summary in found]
    return Series(role, TITLES[role], means, [summary.interval if summary else None for summary in found])


def variant_rows(rows: Sequence[Row], factors: Sequence[str]) -> list[VariantRow]:
    """A row for every point that has a valid seed, those that protect most first."""
    found = []
    for group in grouped([row for row in rows if not row["invalid"]], factors):
        means = {role: fmean(row[f"{role}_last"] for row in group) for role in SHOWN}
        found.append(
            VariantRow(
                [group[0][name] for name in factors],
                list(means.items()),
                fmean(row["protected_train"] for row in group),
                means["clean"] - means["protected"],
                max(row["craft_seconds"] for row in group),
                max(row["peak_memory_mebibytes"] for row in group),
            )
        )
    return sorted(found, key=lambda row: -row.below)
