"""The variants of a study side by side: what is left of what victims learn, and what crafting took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from hpcule.study.collect import ROLES, Row, grouped
from hpcule.study.grid import Role

VARIANT = "variant"
SHOWN: tuple[Role, ...] = ("clean", "noise", "protected")


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
    accuracies: Sequence[tuple[Role, float]]
    trained: float
    below: float
    seconds: float
    peak: float


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


def headings() -> list[str]:
    """Of the accuracies."""
    return [ROLES[role] for role in SHOWN]
