"""Whether a document is what its type says, in every key and every value; mypy holds only what the code says of it."""

from __future__ import annotations

import json
import types
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NotRequired, Union, get_args, get_origin, get_type_hints, is_typeddict


def mismatches(document: Any, expected: Any) -> list[str]:
    """Places where a document, as its JSON holds it, differs from its type.

    A type whose name ends in `Settings` lists what is read: there may be more.
    """
    return list(_mismatches(json.loads(json.dumps(document)), expected, "document"))


def _mismatches(value: Any, expected: Any, where: str) -> list[str]:
    origin, arguments = get_origin(expected), get_args(expected)
    if is_typeddict(expected):
        return _of_keys(value, expected, where) if isinstance(value, dict) else [f"{where}: {value!r} is no object"]
    if origin in (Union, types.UnionType):
        found = [_mismatches(value, one, where) for one in arguments]
        return min(found, key=len)
    if origin is Literal:
        return [] if value in arguments else [f"{where}: {value!r} is none of {arguments}"]
    if origin in (list, Sequence) and isinstance(value, list):
        return [text for n, item in enumerate(value) for text in _mismatches(item, arguments[0], f"{where}[{n}]")]
    if origin in (dict, Mapping) and isinstance(value, dict):
        return [text for name, item in value.items() for text in _mismatches(item, arguments[1], f"{where}.{name}")]
    if expected in (Any, object):
        return []
    accepted = (int, float) if expected is float else expected
    fits = isinstance(accepted, type | tuple) and isinstance(value, accepted)
    return [] if fits and isinstance(value, bool) <= (expected is bool) else [f"{where}: {value!r} is no {expected}"]


def _of_keys(value: dict[str, Any], expected: Any, where: str) -> list[str]:
    hints = get_type_hints(expected, include_extras=True)
    optional = {name for name, hint in hints.items() if get_origin(hint) is NotRequired}
    found = [f"{where}.{name} is missing" for name in hints.keys() - optional - value.keys()]
    if not expected.__name__.endswith("Settings"):
        found += [f"{where}.{name} is in no type" for name in value.keys() - hints.keys()]
    for name in hints.keys() & value.keys():
        hint = get_args(hints[name])[0] if name in optional else hints[name]
        found += _mismatches(value[name], hint, f"{where}.{name}")
    return found
