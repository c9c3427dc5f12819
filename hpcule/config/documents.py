"""Whether a document read from JSON is what its type says, in every key and every value."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NotRequired, Union, cast, get_args, get_origin, get_type_hints, is_typeddict


def checked(document: Mapping[str, object], expected: object) -> Any:
    """The document, which is of the type `expected`: a `TypedDict`, or a union of several.

    Raises:
        ValueError: it is not; the first place that differs is named.
    """
    for mismatch in mismatches(document, expected):
        raise ValueError(mismatch)
    return document


def mismatches(document: object, expected: object) -> list[str]:
    """Places where a document, as its JSON holds it, differs from its type.

    A type whose name ends in `Settings` lists what is read: there may be more.
    """
    return list(_mismatches(document, expected, "document"))


def _mismatches(value: object, expected: object, where: str) -> Iterator[str]:
    origin, arguments = get_origin(expected), get_args(expected)
    if is_typeddict(expected):
        yield from _of_keys(value, expected, where) if isinstance(value, dict) else [f"{where}: {value!r} is no object"]
    elif origin in (Union, types.UnionType):
        yield from min((list(_mismatches(value, one, where)) for one in arguments), key=len)
    elif origin is Literal:
        yield from [] if value in arguments else [f"{where}: {value!r} is none of {arguments}"]
    elif origin is tuple and isinstance(value, list) and len(value) == len(arguments):
        for number, (item, one) in enumerate(zip(value, arguments, strict=True)):
            yield from _mismatches(item, one, f"{where}[{number}]")
    elif origin in (list, Sequence) and isinstance(value, list):
        for number, item in enumerate(value):
            yield from _mismatches(item, arguments[0], f"{where}[{number}]")
    elif origin in (dict, Mapping) and isinstance(value, dict):
        for name, item in value.items():
            yield from _mismatches(name, arguments[0], f"{where}.{name}")
            yield from _mismatches(item, arguments[1], f"{where}.{name}")
    elif expected not in (Any, object) and not _is_plain(value, expected):
        yield f"{where}: {value!r} is no {expected}"


def _of_keys(value: dict[str, object], expected: object, where: str) -> Iterator[str]:
    hints = get_type_hints(cast(type, expected), include_extras=True)
    optional = {name for name, hint in hints.items() if get_origin(hint) is NotRequired}
    for name in hints.keys() - optional - value.keys():
        yield f"{where}.{name} is missing"
    if not cast(type, expected).__name__.endswith("Settings"):
        for name in value.keys() - hints.keys():
            yield f"{where}.{name} is in no type"
    for name in hints.keys() & value.keys():
        hint = get_args(hints[name])[0] if name in optional else hints[name]
        yield from _mismatches(value[name], hint, f"{where}.{name}")


def _is_plain(value: object, expected: object) -> bool:
    """Whether a value that is no container is of a type. True is no number; a whole number may stand for a float."""
    accepted = (int, float) if expected is float else expected
    fits = isinstance(accepted, type | tuple) and isinstance(value, accepted)
    return fits and isinstance(value, bool) <= (expected is bool)
