"""The known-plaintext attack for people: what one way of stripping leaves, and what a network learns from it."""

from __future__ import annotations

from collections.abc import Mapping

from hpcule.evaluation.results import percent
from hpcule.measure.strip import Way
from hpcule.probes.documents import StripDocument
from hpcule.report.terminal import plain_console, titled_table

ROWS: Mapping[Way, str] = {"pattern": "stripped, as a pattern", "filter": "stripped, as a filter"}
WIDTH = 100


def strip_rows(results: StripDocument) -> list[tuple[str, str, float, float]]:
    """The rows of the table: CSS class, name, mean change in levels, accuracy in [0, 1]."""
    rows = [
        ("clean", "clean control", 0.0, results["clean"]["last"]),
        ("protected", "protected", results["protected"]["residual"], results["protected"]["last"]),
    ]
    for way, name in ROWS.items():
        found = results["stripped"][way]
        rows.append((way, name, found["residual"], found["last"]))
    return rows


def print_strip(results: StripDocument) -> None:
    """Print what is left of the perturbation and what a network learns, with warnings and meaning."""
    console = plain_console(WIDTH)
    table = titled_table(f"Stripped with {originals(results)}")
    for heading in ("samples trained on", "mean change, levels", "accuracy"):
        table.add_column(heading, justify="left" if heading == "samples trained on" else "right")
    for _, name, residual, last in strip_rows(results):
        table.add_row(name, f"{residual:.2f}", percent(last))
    console.print(table)
    for paragraph in [*strip_warnings(results), *strip_claims(results)]:
        console.print(f"\n{paragraph}")


def originals(results: StripDocument) -> str:
    """What the attacker has, in words."""
    count = results["settings"]["originals"]
    return f"{'one original' if count == 1 else f'{count} originals'} of each class ({results['known']:,} in all)"


def strip_warnings(results: StripDocument) -> list[str]:
    """Paragraphs that limit what the figures mean, to be read first; empty if there are none."""
    if results["status"] != "invalid":
        return []
    return [
        "INVALID: the network trained on clean samples reached an accuracy of "
        f"{percent(results['clean']['last'])} (chance level {percent(results['data']['chance'])}). Train longer."
    ]


def strip_claims(results: StripDocument) -> list[str]:
    """Paragraphs on what the attack shows, and on what it does not cover."""
    clean, protected = results["clean"]["last"], results["protected"]["last"]
    best = max(found["last"] for found in results["stripped"].values())
    share = ""
    if clean > protected:
        back = min(1.0, max(0.0, (best - protected) / (clean - protected)))
        share = f" The better of the two ways brings {percent(back)} of the lost accuracy back."
    return [
        f"The attacker has {originals(results)} next to the published copies, and takes what they show of each class's "
        "perturbation off all published samples of the class: their mean difference (single pixels are filled from "
        f"around), or a filter fitted by least squares.{share}",
        "Perturbations that a class shares come off in this way; keep every original of the published samples secret, "
        "or use a method whose perturbation differs between samples. Other ways of stripping may bring back more.",
    ]
