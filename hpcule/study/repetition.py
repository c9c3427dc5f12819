"""A record's row measured again, and how it differs from the record."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import NotRequired, TypedDict

from hpcule.config.errors import HpculeError
from hpcule.config.tree import build_config
from hpcule.craft.measured import MeasuredRow
from hpcule.craft.records import PublishedDocument, RecordDocument
from hpcule.study.config import StudyConfig
from hpcule.study.measured_rows import measured_rows_of


class RecordAgainDocument(TypedDict):
    """A record and the same measured again; `differences` are new minus recorded, in [-1, 1].

    `same_deltas` says whether the perturbations of all seeds have the recorded hashes; None: no hashes were recorded.
    """

    method: str
    data: str
    published: PublishedDocument
    note: NotRequired[str]
    recorded: MeasuredRow
    repeated: MeasuredRow
    differences: Mapping[str, float]
    same_deltas: bool | None


def study_of_record(record: RecordDocument, data: str | None, test: str | None) -> StudyConfig:
    """The study that measures a record's row and nothing else.

    Args:
        record: what is repeated.
        data: where its data are, if not where it found them.
        test: its clean test samples; None: those of the record or, with `data`, its test split.
    """
    settings = dict(record["settings"])
    if data is not None:
        settings |= {"data": data, "test": test}
    elif test is not None:
        settings["test"] = test
    return build_config(StudyConfig, settings)


def repetition(record: RecordDocument, config: StudyConfig, cells: Path) -> RecordAgainDocument:
    """What the cells of a repetition say, next to the record.

    Raises:
        HpculeError: the clean control has not learnt.
    """
    with cells.open() as file:
        rows = list(measured_rows_of(config, list(csv.DictReader(file)), str(cells)))
    if not rows:
        raise HpculeError(f"{cells}: the clean control has not learnt, so this repetition shows nothing")
    (row,) = rows
    old = record["measured"]
    found: RecordAgainDocument = {
        "method": record["method"],
        "data": record["data"],
        "published": record["published"],
        "recorded": old,
        "repeated": row,
        "differences": {
            "protected": round(row["protected"] - old["protected"], 4),
            "noise": round(row["noise"] - old["noise"], 4),
            "clean": round(row["clean"] - old["clean"], 4),
        },
        "same_deltas": list(row["deltas"]) == list(old["deltas"]) if old["deltas"] else None,
    }
    if "note" in record:
        found["note"] = record["note"]
    return found
