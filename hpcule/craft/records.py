"""Published figures next to ours: records that `make pages` derives from results/METHOD/DATA.json and from studies."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import NotRequired, TypedDict

from hpcule.config.errors import UsageError
from hpcule.craft.measured import MeasuredRow, percentages, seed_count

RECORDS = files("hpcule.craft").joinpath("records.json")


class PublishedDocument(TypedDict):
    """Accuracy on clean test samples, in [0, 1], that others report of a method, and where they do."""

    protected: float
    clean: NotRequired[float]
    network: str
    source: str


class RecordDocument(TypedDict):
    """A published figure, the row of a study that stands next to it, and the settings of that row.

    `study` names configs/study/STUDY.yaml and docs/studies/STUDY.csv. `settings` are those of a study that has
    nothing but this row, as in such a file.
    """

    method: str
    data: str
    published: PublishedDocument
    note: NotRequired[str]
    """What else differs between both figures."""
    study: str
    variant: str
    network: str
    recipe: str
    measured: MeasuredRow
    settings: Mapping[str, object]


@cache
def records() -> Sequence[RecordDocument]:
    """All records, by method and data."""
    found: list[RecordDocument] = json.loads(RECORDS.read_text())
    return found


def find_record(method: str, data: str) -> RecordDocument:
    """The record of a method on data.

    Raises:
        UsageError: there is none.
    """
    for record in records():
        if (record["method"], record["data"]) == (method, data):
            return record
    names = ", ".join(f"{record['method']} {record['data']}" for record in records())
    raise UsageError(f"no record of {method} on {data}; records are there of {names}: name one of them")


def records_of(method: str) -> list[RecordDocument]:
    """The records of a method."""
    return [record for record in records() if record["method"] == method]


def record_sentence(record: RecordDocument) -> str:
    """The published figure and ours, with what they are figures of."""
    published, row = record["published"], record["measured"]
    named, figures = "protected", f"{100 * published['protected']:.1f}"
    if "clean" in published:
        named, figures = "protected / clean", f"{figures} / {100 * published['clean']:.1f}"
    reduced = ", reduced" if row["reduced"] else ""
    return (
        f"{record['data']}, published {named}: {figures} % ({published['network']}; {published['source']}); here "
        f"protected / random noise / clean: {percentages(row)} % ({row['network']}, {row['recipe']}, "
        f"{row['samples']:,} samples, preset {row['preset']}{reduced}, {seed_count(row)})"
    )
