"""A certificate for people: in a terminal, and as one self-contained HTML page."""

from __future__ import annotations

import math
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

TELLING = 0.05
"""A clean control that is certified to less than so much beyond chance says that the noise alone keeps all low."""


def print_certificate(results: Mapping[str, Any]) -> None:
    """Print the bounds, and what must be read with them."""
    console = plain_console(WIDTH)
    table = titled_table("Certified accuracy at most, by the length of a move of all weights")
    for heading in ("", "unmoved", *(f"{eta:g}" for eta in results["settings"]["etas"])):
        table.add_column(heading, justify="right" if heading else "left")
    for basis, label in LABELS.items():
        found = results[basis]
        cells = ["none" if bound["accuracy"] is None else percent(bound["accuracy"]) for bound in found["bounds"]]
        table.add_row(label, percent(found["quantile"]), *cells)
    console.print(table)
    for paragraph in [*warnings(results), reading(results)]:
        console.print(f"\n{paragraph}")


def write_certificate(results: Mapping[str, Any], path: Path) -> None:
    """Write the page, readable by its owner alone.

    Raises:
        StoreError: it cannot be written.
    """
    text = environment().get_template("certify.html.j2").render(context(results))
    write_atomically(path, text.encode())


def context(results: Mapping[str, Any]) -> dict[str, Any]:
    """See `page_context`."""
    return page_context(
        results,
        "Certificate",
        chart=Markup(_chart(results)),
        warnings=warnings(results),
        claims=[reading(results), *claims(results)],
    )


def reading(results: Mapping[str, Any]) -> str:
    """What the bounds say."""
    settings, test = results["settings"], results["data"]["test"]
    return (
        f"With Gaussian noise of deviation {settings['deviation']:g} on every weight of these networks, and of "
        f"networks whose weights all together differ from them by at most the length shown, at least "
        f"{percent(settings['quantile'])} of the draws recognise no more than the bound of the {test:,} clean test "
        f"samples. All bounds hold together with {percent(1 - settings['alpha'])} confidence over "
        f"{settings['draws']:,} draws."
    )


def warnings(results: Mapping[str, Any]) -> list[str]:
    """What stands in the way of the figures."""
    paragraphs, settings = not_learnt(results, " without noise"), results["settings"]
    chance, clean = results["data"]["chance"], results["clean"]
    if not paragraphs and clean["quantile"] < chance + TELLING:
        paragraphs.append(
            f"These bounds say nothing about the protection: under this noise the network on clean samples is at "
            f"{percent(clean['quantile'])} too, chance is {percent(chance)}. Take a smaller deviation, or train with "
            "noise on the weights (victim.weight_noise)."
        )
    if settings["victim"]["weight_noise"] < settings["deviation"]:
        paragraphs.append(
            f"The networks were trained with noise of {settings['victim']['weight_noise']:g} on their weights and "
            f"certified with {settings['deviation']:g}: a network that does not bear noise gives a low bound whatever "
            "the samples."
        )
    return paragraphs


def claims(results: Mapping[str, Any]) -> list[str]:
    """What the certificate does not say."""
    margin = 100 * math.sqrt(math.log(100) / (2 * results["data"]["test"]))
    return [
        "The certificate is about the neighbourhood of one trained network, and about random draws there: it bounds "
        "most of them, not each. Another training, even with the same samples and settings, ends much farther away "
        "than the lengths shown, and is not covered.",
        "Compare bounds only where the networks were trained with the same noise, as the two rows of this page were. A "
        "bound on protected samples means something as far as it lies below the one on clean samples.",
        f"Accuracy is that on this test set. For one network, the choice of its {results['data']['test']:,} samples "
        f"leaves another {margin:.1f} points (Hoeffding, 99%).",
    ]


def _chart(results: Mapping[str, Any]) -> str:
    axis = ["0", *(f"{eta:g}" for eta in results["settings"]["etas"])]
    series = []
    for basis, label in LABELS.items():
        values = [results[basis]["quantile"], *(bound["accuracy"] for bound in results[basis]["bounds"])]
        series.append(Series(basis, label, values, [None] * len(values)))
    described = "; ".join(
        f"{line.label} {', '.join('none' if value is None else percent(value) for value in line.values)}"
        for line in series
    )
    return series_chart("Certified accuracy over the length of the move", described, axis, series, None)
