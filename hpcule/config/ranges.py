"""Ranges of settings: each is declared once, at its field, and read by validation and documentation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields, is_dataclass
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T")
_KEY = "range"
"""Key of a field's metadata."""


@dataclass(frozen=True, kw_only=True)
class Range:
    """An interval of numbers."""

    at_least: float | None = None
    """Lower end, included."""
    above: float | None = None
    """Lower end, excluded."""
    at_most: float | None = None
    """Upper end, included."""
    below: float | None = None
    """Upper end, excluded."""
    words: str | None = None
    """Description that replaces the ends where these need an explanation."""

    def __contains__(self, value: float) -> bool:
        return (
            (self.at_least is None or value >= self.at_least)
            and (self.above is None or value > self.above)
            and (self.at_most is None or value <= self.at_most)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        ends = {"from": self.at_least, "above": self.above, "up to": self.at_most, "below": self.below}
        phrases = [f"{word} {end:g}" for word, end in ends.items() if end is not None]
        return (" " if self.below is None else " and ").join(phrases)


def setting(
    default: T,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    words: str | None = None,
) -> T:
    """A dataclass field with a default and a range; of a tuple, every item is in the range, and None always is.

    `words` describes the range in messages and tables where its ends alone need an explanation.
    """
    limits = Range(at_least=at_least, above=above, at_most=at_most, below=below, words=words)
    return field(default=default, metadata={_KEY: limits})


def range_of(field: Field[Any]) -> str | None:
    """The valid numbers of a setting in words, such as `whole numbers from 1`; None if no range is declared."""
    limits: Range | None = field.metadata.get(_KEY)
    if limits is None:
        return None
    return limits.words or f"{'whole numbers' if 'int' in str(field.type) else 'numbers'} {limits}"


def check_ranges(config: DataclassInstance) -> None:
    """Compare every value with the range of its field.

    Raises:
        ValueError: a value is out of range; the message names the setting, the value and the range.
    """
    for declared in fields(config):
        value = getattr(config, declared.name)
        items = value if isinstance(value, tuple) else (value,)
        limits: Range | None = declared.metadata.get(_KEY)
        if limits is not None and any(item is not None and item not in limits for item in items):
            raise ValueError(f"{declared.name}={value_text(value)}: valid are {range_of(declared)}")


def value_text(value: object) -> str:
    """A value as messages write it."""
    if isinstance(value, tuple):
        return str(list(value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def keep_ranges(config_class: type) -> None:
    """Give a field whose default a subclass changes the range that its base declares; for `__init_subclass__`."""
    declared: dict[str, Mapping[str, object]] = {}
    for base in reversed(config_class.__mro__[1:]):
        if is_dataclass(base):
            declared |= {inherited.name: inherited.metadata for inherited in fields(base)}
    for name, default in list(vars(config_class).items()):
        if _KEY in declared.get(name, {}) and not isinstance(default, Field):
            setattr(config_class, name, field(default=default, metadata=declared[name]))
