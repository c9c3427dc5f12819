from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pytest

from hpcule.config.described import Described, described
from hpcule.config.ranges import setting
from hpcule.craft.table import METHODS

LINES = "over two lines; null: no rate."


@dataclass(frozen=True, kw_only=True)
class Base:
    """What is below a class is not below a field."""

    plain: int = 3
    rate: float | None = setting(0.1, above=0, at_most=2)
    """Rate of the first kind,
    over two lines; None: no rate."""
    kind: Literal["round", "square"] = "round"
    """Shape of the base."""


@dataclass(frozen=True, kw_only=True)
class Extended(Base):
    """Extends it."""

    kind: Literal["round", "square"] = "square"
    parts: tuple[float, ...] = (0.5,)
    """Parts of the way."""
    on: bool = False

    def method(self) -> None:
        """A literal, but of no field."""


def test_literals_ranges_and_types_are_those_of_the_source():
    assert described(Extended) == [
        Described("plain", "whole number", "", ""),
        Described("rate", "number or null", "numbers above 0 up to 2", f"Rate of the first kind, {LINES}"),
        Described("kind", "name", "round, square", "Shape of the base."),
        Described("parts", "list", "", "Parts of the way."),
        Described("on", "true or false", "", ""),
    ]


@pytest.mark.parametrize("name", METHODS)
def test_every_setting_of_a_method_has_a_description(name):
    assert [part.name for part in described(METHODS[name].config_class) if not part.description] == []
