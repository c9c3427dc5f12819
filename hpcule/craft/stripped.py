"""What stripping with known originals took off the methods' perturbations: rows that `bench/strip.py` has measured."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import TypedDict


class StrippedRow(TypedDict):
    """One store, stripped with as many originals of every class; one seed."""

    method: str
    """Name of a method, with ` by UNIT` where its setting `unit` is not the default."""
    unit: str
    """What one perturbation of the store is for."""
    preset: str
    data: str
    samples: int
    network: str
    originals: int
    known: int
    """Number of originals in all."""
    levels: Mapping[str, float]
    """Mean absolute difference of the other samples from their originals: protected, and stripped by either way."""
    accuracy: Mapping[str, float] | None
    """Accuracy in [0, 1] on clean test samples, after training on clean ones and on the same; None: not measured."""


@cache
def stripped_rows() -> Sequence[StrippedRow]:
    """All rows, in the order of data, methods and originals."""
    found: list[StrippedRow] = json.loads(files("hpcule.craft").joinpath("stripped.json").read_text())
    return found


def stripped_sentences(method: str) -> list[str]:
    """One sentence for each store that was stripped with one original of every class; none where there is none."""
    own = [row for row in stripped_rows() if row["method"].partition(" by ")[0] == method]
    return [_sentence(row) for row in own if row["originals"] == 1]


def _sentence(row: StrippedRow) -> str:
    levels, accuracy = row["levels"], row["accuracy"]
    variant = row["method"].partition(" by ")[2]
    text = (
        f"{f'By {variant}, w' if variant else 'W'}ith one original of each class known, the other samples differ from "
        f"their originals by {levels['protected']:.2f} levels as published, {levels['pattern']:.2f} stripped as a "
        f"pattern and {levels['filter']:.2f} stripped as a filter"
    )
    if accuracy is not None:
        shares = " / ".join(f"{100 * accuracy[name]:.0f}" for name in ("protected", "pattern", "filter", "clean"))
        text += f"; accuracy protected / pattern off / filter off / clean: {shares} %"
    return f"{text} ({row['samples']:,} samples of {row['data']}, preset {row['preset']}, 1 seed)"
