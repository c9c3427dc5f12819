"""Measured scaling as a table in a terminal and as one self-contained HTML page."""

from __future__ import annotations

from pathlib import Path

from markupsafe import Markup

from hpcule.config.tree import dump_yaml
from hpcule.evaluation.results import percent
from hpcule.planning.scaling import PARTS, PointDocument, ScalingDocument, shares
from hpcule.report.charts import Series, Stack, series_chart, stacked_chart
from hpcule.report.page import environment
from hpcule.report.terminal import plain_console, titled_table
from hpcule.store.files import write_atomically

PLAIN_WIDTH = 120
TITLES = {
    "strong": "Strong: the same samples for every number of workers",
    "weak": "Weak: equally many samples per worker",
}
HEADINGS = ("workers", "samples", "wall s", "craft s", "images/s", "efficiency", *PARTS, "memory MiB")


def print_scaling(results: ScalingDocument) -> None:
    """Print one table a kind of scaling, and the warnings."""
    console = plain_console(PLAIN_WIDTH)
    for kind, title in TITLES.items():
        table = titled_table(title)
        for heading in HEADINGS:
            table.add_column(heading, justify="right")
        for row in _of(results, kind):
            table.add_row(*cells(row))
        console.print(table)
    for line in results["warnings"]:
        console.print(f"! {line}", style="yellow")


def cells(row: PointDocument) -> list[str]:
    """A row of the table, in the order of `HEADINGS`."""
    return [
        str(row["workers"]),
        f"{row['samples']:,}",
        f"{row['wall_seconds']:.2f}",
        f"{row['craft_seconds']:.2f}",
        f"{row['images_per_second']:,.1f}",
        percent(row["efficiency"]),
        *(percent(share) for _, share in shares(row)),
        f"{row['peak_memory_mebibytes']:,}",
    ]


def write_scaling_report(results: ScalingDocument, path: Path) -> None:
    """Write the page; it needs no network, no script and no other file."""
    page = (
        environment()
        .get_template("scaling.html.j2")
        .render(
            results=results,
            headings=HEADINGS,
            tables=[(title, [cells(row) for row in _of(results, kind)]) for kind, title in TITLES.items()],
            efficiency=Markup(_efficiency(results)),
            parts=PARTS,
            panels=[(title, Markup(_stacks(kind, results))) for kind, title in TITLES.items()],
            settings=dump_yaml(results["settings"]),
        )
    )
    write_atomically(path, page.encode())


def _of(results: ScalingDocument, kind: str) -> list[PointDocument]:
    return [row for row in results["points"] if row["kind"] == kind]


def _efficiency(results: ScalingDocument) -> str:
    axis = [str(row["workers"]) for row in _of(results, "strong")]
    series = [
        Series(kind, kind, [row["efficiency"] for row in _of(results, kind)], [None] * len(axis)) for kind in TITLES
    ]
    return series_chart("Efficiency over workers", "Strong and weak, in percent of ideal.", axis, series, None)


def _stacks(kind: str, results: ScalingDocument) -> str:
    columns = [Stack(str(row["workers"]), shares(row)) for row in _of(results, kind)]
    return stacked_chart(f"Where the time went, {kind}", "Shares of the run over the number of workers.", columns)
