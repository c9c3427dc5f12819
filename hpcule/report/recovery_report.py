"""The recovery attack for people: in a terminal, and as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from hpcule.evaluation.results import percent
from hpcule.report.charts import Series, series_chart
from hpcule.report.networks_report import LABELS, WIDTH, not_learnt, page_context
from hpcule.report.page import environment
from hpcule.report.terminal import plain_console, titled_table
from hpcule.store.files import write_atomically


def print_recovery(results: Mapping[str, Any]) -> None:
    """Print the accuracies, and what must be read with them."""
    console = plain_console(WIDTH)
    table = titled_table("Accuracy after learning from withheld clean samples, by how far the weights may move")
    for heading in ("", "0", *(f"{eta:g}" for eta in results["settings"]["etas"])):
        table.add_column(heading, justify="right" if heading else "left")
    for basis, label in LABELS.items():
        found = results[basis]
        table.add_row(label, percent(found["last"]), *(percent(point["accuracy"]) for point in found["recovered"]))
    console.print(table)
    for paragraph in [*warnings(results), *claims(results)]:
        console.print(f"\n{paragraph}")


def write_recovery(results: Mapping[str, Any], path: Path) -> None:
    """Write the page, readable by its owner alone.

    Raises:
        StoreError: it cannot be written.
    """
    text = environment().get_template("recover.html.j2").render(context(results))
    write_atomically(path, text.encode())


def context(results: Mapping[str, Any]) -> dict[str, Any]:
    """See `page_context`."""
    return page_context(
        results,
        "Recovery attack",
        chart=Markup(_chart(results)),
        warnings=warnings(results),
        claims=claims(results),
    )


def warnings(results: Mapping[str, Any]) -> list[str]:
    """What stands in the way of the figures."""
    return not_learnt(results)


def claims(results: Mapping[str, Any]) -> list[str]:
    """What the attack says, and what it does not."""
    furthest = results["protected"]["recovered"][-1]
    return [
        f"The attacker has a network that was trained on {results['data']['train']:,} protected samples and "
        f"{results['withheld']:,} clean ones that are not among them, and moves all weights together by at most the "
        f"length shown, in L2. The {results['withheld']:,} clean samples alone bring a new network of the same recipe "
        f"to {percent(results['scratch'])}: what an attack reaches beyond that came out of the protected samples.",
        f"With the longest move of {furthest['eta']:g} the attack on the protected network ends "
        f"{furthest['moved']:.2g} away from its start; BatchNorm's running statistics are no weights, and follow "
        "the clean samples freely.",
        "One seed and one way of fine-tuning: another may recover more.",
    ]


def _chart(results: Mapping[str, Any]) -> str:
    axis = ["0", *(f"{eta:g}" for eta in results["settings"]["etas"])]
    series = []
    for basis, label in LABELS.items():
        values = [results[basis]["last"], *(point["accuracy"] for point in results[basis]["recovered"])]
        series.append(Series(basis, label, values, [None] * len(values)))
    described = "; ".join(f"{line.label} {', '.join(percent(v or 0) for v in line.values)}" for line in series)
    return series_chart("Accuracy over the length of the move", described, axis, series, results["data"]["chance"])
