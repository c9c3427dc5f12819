"""The comparison of documents with their types sees what differs."""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict

import pytest
from documents import mismatches


class PointDocument(TypedDict):
    at: float
    label: NotRequired[str | None]


class SomeSettings(TypedDict):
    seed: int


class LineDocument(TypedDict):
    kind: Literal["line"]
    points: list[PointDocument]
    settings: SomeSettings


LINE = {"kind": "line", "points": [{"at": 1}, {"at": 0.5, "label": None}], "settings": {"seed": 1, "more": 2}}


def test_a_document_of_its_type_has_no_mismatch() -> None:
    assert mismatches(LINE, LineDocument) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "dot"}, "document.kind: 'dot' is none of"),
        ({"points": [{}]}, "document.points[0].at is missing"),
        ({"points": [{"at": "1"}]}, "document.points[0].at: '1' is no"),
        ({"points": [{"at": True}]}, "document.points[0].at: True is no"),
        ({"points": [{"at": 1, "label": 2}]}, "document.points[0].label: 2 is no"),
        ({"points": {}}, "document.points: {} is no"),
        ({"settings": {}}, "document.settings.seed is missing"),
        ({"settings": 1}, "document.settings: 1 is no object"),
        ({"other": 1}, "document.other is in no type"),
    ],
)
def test_what_differs_is_named(change: dict, message: str) -> None:
    (found,) = mismatches({**LINE, **change}, LineDocument)
    assert found.startswith(message)
