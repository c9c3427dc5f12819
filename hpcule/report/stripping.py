"""Stripping with known originals for people: rows of the table, and what they show."""

from __future__ import annotations

from collections.abc import Mapping

from hpcule.evaluation.results import percent
from hpcule.measure.strip import Way
from hpcule.probes.documents import StripDocument

ROWS: Mapping[Way, str] = {"pattern": "stripped, as a pattern", "filter": "stripped, as a filter"}


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


def originals(results: StripDocument) -> str:
    """What the attacker has, in words."""
    count = results["settings"]["originals"]
    return f"{'one original' if count == 1 else f'{count} originals'} of each class ({results['known']:,} in all)"


def strip_claims(results: StripDocument) -> list[str]:
    """Paragraphs on what the attack shows, and on what it does not cover."""
    clean, protected = results["clean"]["last"], results["protected"]["last"]
    best = max(found["last"] for found in results["stripped"].values())
    share = ""
    if clean > protected:
        back = min(1.0, max(0.0, (best - protected) / (clean - protected)))
        share = f" The better of the two ways brings {percent(back)} of the lost {results['measure']} back."
    return [
        f"The attacker has {originals(results)} next to the published copies, and takes what they show of each class's "
        "perturbation off all published samples of the class: their mean difference (single pixels are filled from "
        f"around), or a filter fitted by least squares.{share}",
        "Patterns that a class shares come off in this way; keep every original of the published samples secret, or "
        "use a method whose perturbation differs between samples. Other ways of stripping may bring back more.",
    ]
