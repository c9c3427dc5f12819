"""What was measured of the methods: rows that `make pages` derives from the result records in docs/studies."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from itertools import groupby
from typing import TypedDict

from hpcule.craft.stripped import stripped_sentences
from hpcule.measure.accuracy import ACCURACY

ROWS = "measured.json"
PRETRAINED = frozenset({"fine-tune", "linear-probe"})
"""Steps of recipes that begin with pre-trained weights."""
CLAIMS = {
    "crop-flip": "crops",
    "grayscale": "grayscale",
    "jpeg-10": "JPEG",
    "cutout": "cutout",
    "mixup": "mixing",
    "simclr-20": "contrastive training",
}
"""Words of authors' claims, by the recipe that tests them."""
UNPROTECTED = 0.9
"""Share of what the clean control learns beyond chance from which on a victim has lost next to nothing."""


class MeasuredRow(TypedDict):
    """Means over seeds of what victims of one store reach on clean test samples, in [0, 1]: the headline `measure`, for
    which guessing gives `chance`."""

    method: str
    record: str
    """File with the cells, below the root of the repository."""
    variant: str
    """How the record calls the method with these settings."""
    data: str
    samples: int
    preset: str
    too_short: bool
    """Whether the preset is too short to judge the method."""
    network: str
    recipe: str
    seeds: int
    measure: str
    chance: float
    protected: float
    interval: Sequence[float] | None
    """Interval at 95 % of the mean of `protected` over seeds; None: one seed."""
    noise: float
    """Control: random noise instead of the perturbation."""
    clean: float
    """Control: clean samples."""
    craft_seconds: float
    hours: float
    """Worker-hours of the crafts and of the victims, controls among them."""
    reduced: bool
    """Whether the preset is not the paper's, or victims train on a part of the samples."""
    deltas: Sequence[str]
    """SHA-256 of the perturbations of each seed; empty: not noted."""


@cache
def measured_rows() -> Sequence[MeasuredRow]:
    """All rows, in the order of records and of their cells."""
    found: list[MeasuredRow] = json.loads(files("hpcule.craft").joinpath(ROWS).read_text())
    return found


def measured_sentences(method: str) -> list[str]:
    """One sentence for each store and network that was measured, and for each stripping; none where there is none."""
    own = [row for row in measured_rows() if row["method"] == method]
    groups = groupby(own, key=lambda row: (row["record"], row["variant"], row["network"]))
    return [*(_sentence(list(group)) for _, group in groups), *stripped_sentences(method)]


def with_evidence(method: str, claimed: str) -> str:
    """What a method's authors claim that it withstands, with the measured recipes that it did not withstand.

    Crafts too short to judge the method count neither way.
    """
    failed = [
        f"{row['recipe']} {percentages(row)} ({row['record']}, {seed_count(row)})"
        for row in measured_rows()
        if row["method"] == method
        and not row["too_short"]
        and CLAIMS.get(row["recipe"], "\0") in claimed
        and _left(row) >= UNPROTECTED
    ]
    evidence = f"not confirmed here, protected / random noise / clean: {', '.join(failed)}"
    return f"{claimed}; {evidence}" if failed else claimed


def percentages(row: MeasuredRow) -> str:
    """Protected / random noise / clean accuracy in percent."""
    return f"{100 * row['protected']:.0f} / {100 * row['noise']:.0f} / {100 * row['clean']:.0f}"


def pretrained_rows(method: str) -> list[MeasuredRow]:
    """Attackers with pre-trained weights that were measured."""
    return [
        row
        for row in measured_rows()
        if row["method"] == method and not PRETRAINED.isdisjoint(row["recipe"].partition("@")[0].split("+"))
    ]


def hardest_pretrained(rows: Sequence[MeasuredRow]) -> MeasuredRow | None:
    """The best attacker on the variant of a method that withstands its best attacker best; None without rows.

    Attackers choose the recipe by which they reach most, and not the one whose clean control is weakest.
    """
    best: dict[str, MeasuredRow] = {}
    for row in rows:
        found = best.get(row["variant"])
        if found is None or row["protected"] > found["protected"]:
            best[row["variant"]] = row
    return min(best.values(), key=_reached, default=None)


def expected_order(method: str) -> tuple[float, float, float]:
    """Sorts methods: what the best attacker with pre-trained weights reaches, see `hardest_pretrained`, 1 for methods
    without such a record; then as `cost_order`."""
    row = hardest_pretrained(pretrained_rows(method))
    return (1.0 if row is None else _reached(row), *cost_order(method))


def cost_order(method: str) -> tuple[float, float]:
    """Sorts methods: crafting time in whole minutes, then what is left of accuracy; those without a record last."""
    plain = [
        row for row in measured_rows() if row["variant"].lower() == row["method"] == method and row["recipe"] == "plain"
    ]
    return min(((row["craft_seconds"] // 60, row["protected"]) for row in plain), default=(float("inf"), 1.0))


def _left(row: MeasuredRow) -> float:
    """Of what the clean control learns beyond chance, the share that victims learn from the protected set all the same.
    Clean controls of the rows have learnt."""
    return (row["protected"] - row["chance"]) / (row["clean"] - row["chance"])


def _reached(row: MeasuredRow) -> float:
    """What victims learn beyond chance as a share of what the best clean control of the record learns."""
    best = max(one["clean"] for one in measured_rows() if (one["record"], one["data"]) == (row["record"], row["data"]))
    return (row["protected"] - row["chance"]) / (best - row["chance"])


def _sentence(group: Sequence[MeasuredRow]) -> str:
    first = group[0]
    measure = "" if first["measure"] == ACCURACY else f"{first['measure']}, "
    figures = ", ".join(f"{row['recipe']} {percentages(row)} %" for row in group)
    variant = "" if first["variant"].lower() == first["method"] else f"{first['variant']}, "
    preset = f"{first['preset']} (too short to judge the method)" if first["too_short"] else first["preset"]
    return (
        f"{variant}{measure}protected / random noise / clean: {figures}; {first['samples']:,} samples of "
        f"{first['data']}, {first['network']}, preset {preset}, {seed_count(first)} ({first['record']})"
    )


def seed_count(row: MeasuredRow) -> str:
    """The number of seeds, in words."""
    return "1 seed" if row["seeds"] == 1 else f"{row['seeds']} seeds"
