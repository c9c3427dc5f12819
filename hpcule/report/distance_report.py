"""The Unlearnable Distance for people: in a terminal, and as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hpcule.evaluation.results import percent
from hpcule.report.networks_report import LABELS, WIDTH, not_learnt, page_context
from hpcule.report.page import environment
from hpcule.report.terminal import plain_console, titled_table
from hpcule.store.files import write_atomically

FEW = 2
"""Clean layers above the threshold, below which one layer decides."""


def print_distance(results: Mapping[str, Any]) -> None:
    """Print the distance, what it was made from, and what must be read with it."""
    console = plain_console(WIDTH)
    table = titled_table(f"Unlearnable Distance {results['distance']:.3f}; 1 is as learnable as clean samples")
    table.add_column("")
    for heading in ("accuracy", f"learnable {results['settings']['count']}"):
        table.add_column(heading, justify="right")
    for basis, label in LABELS.items():
        found = results[basis]
        table.add_row(label, percent(found["last"]), f"{found['learnable']:,.1f}")
    console.print(table)
    for paragraph in [*warnings(results), *claims(results)]:
        console.print(f"\n{paragraph}")


def write_distance(results: Mapping[str, Any], path: Path) -> None:
    """Write the page, readable by its owner alone.

    Raises:
        StoreError: it cannot be written.
    """
    text = environment().get_template("distance.html.j2").render(context(results))
    write_atomically(path, text.encode())


def context(results: Mapping[str, Any]) -> dict[str, Any]:
    """See `page_context`."""
    last = [results[basis]["sharpness"][-1] for basis in LABELS]
    most = max([*last[0], *last[1], results["threshold"]])
    rows = [
        (layer["name"], layer["parameters"], *(value / most for value in values), *values)
        for layer, values in zip(results["layers"], zip(*last, strict=True), strict=True)
    ]
    return page_context(
        results,
        f"Unlearnable Distance {results['distance']:.3f}",
        rows=rows,
        warnings=warnings(results),
        claims=claims(results),
    )


def warnings(results: Mapping[str, Any]) -> list[str]:
    """What stands in the way of the figure."""
    paragraphs = [
        *not_learnt(results),
        "One seed: another training may give another number of layers. Repeat it with other seeds.",
    ]
    if results["settings"]["count"] == "layers" and results["clean"]["learnable"] < FEW:
        paragraphs.append(
            f"Of the clean training {results['clean']['learnable']:.1f} layers lie above the threshold: a few sharp "
            "ones have set it, and the distance hardly says more than whether they are as sharp in the other training. "
            "Training with crops and flips (victim.augment=crop-flip) spreads sharpness over more layers."
        )
    return paragraphs


def claims(results: Mapping[str, Any]) -> list[str]:
    """What the distance says, and what it does not."""
    return [
        f"A layer counts as learnable where moving its weights by {percent(results['settings']['radius'])} of their "
        f"length changes the loss by more than {results['threshold']:.4g}, the middle between the two clusters of the "
        f"clean training's layers. Measured on {results['probe_samples']:,} training samples after epochs "
        f"{', '.join(map(str, results['epochs']))}: compare it only with distances for which all of this is the same.",
        "Near 0 training hardly finds anything to do, above 1 it finds more than in clean samples, as with adversarial "
        "perturbations. No more than that is known: the number is no accuracy, and whoever undoes the perturbation "
        "first measures another one.",
        f"Probing took {results['probing_seconds']:,.0f} s, and training both networks "
        f"{results['training_seconds']:,.0f} s.",
    ]
