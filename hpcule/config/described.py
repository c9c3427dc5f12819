"""What a configuration's fields are, for tables: types, ranges, and the literals below the fields as descriptions."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import textwrap
import types
import typing

from hpcule.config.ranges import range_of


@dataclasses.dataclass(frozen=True)
class Described:
    """A setting's name, type, default, range and description."""

    name: str
    type: str
    """Type as users write values of it: whole number, number, true or false, text, name, list, text or list; with or
    null."""
    valid: str
    """Range or names that are valid; empty if all of the type are."""
    description: str
    """Docstring literal below the field, on one line; empty if there is none."""


def described(config_class: type) -> list[Described]:
    """The settings of a configuration in their order, inherited ones first.

    What is valid for a setting NAME whose type does not say so is in the class variable `possible_NAME`.
    """
    hints, docs = typing.get_type_hints(config_class), _literals(config_class)
    found = []
    for field in dataclasses.fields(config_class):
        kinds = [kind for kind in _alternatives(hints[field.name]) if kind is not types.NoneType]
        names = [str(name) for name in typing.get_args(kinds[0]) if typing.get_origin(kinds[0]) is typing.Literal]
        null = " or null" if types.NoneType in _alternatives(hints[field.name]) else ""
        names = names or list(getattr(config_class, f"possible_{field.name}", ()))
        valid = ", ".join(names) or range_of(field) or ""
        found.append(Described(field.name, _word(kinds[0]) + null, valid, docs.get(field.name, "")))
    return found


def _literals(config_class: type) -> dict[str, str]:
    """The string literal below each field, of a class and of all that it extends; the nearest class counts."""
    docs: dict[str, str] = {}
    for base in reversed(config_class.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(tree, ast.ClassDef)
        for statement, below in zip(tree.body, tree.body[1:], strict=False):
            if (
                isinstance(statement, ast.AnnAssign)
                and isinstance(statement.target, ast.Name)
                and isinstance(below, ast.Expr)
                and isinstance(below.value, ast.Constant)
                and isinstance(below.value.value, str)
            ):
                docs[statement.target.id] = _for_users(below.value.value)
    return docs


def _for_users(literal: str) -> str:
    """Join a literal's lines, and write null where Python says None."""
    return re.sub(r"\bNone\b", "null", " ".join(literal.split()))


def _alternatives(hint: object) -> tuple[object, ...]:
    return typing.get_args(hint) if typing.get_origin(hint) in (types.UnionType, typing.Union) else (hint,)


def _word(kind: object) -> str:
    if typing.get_origin(kind) is typing.Literal:
        return "name"
    if typing.get_origin(kind) is tuple:
        return "list"
    if hasattr(kind, "parse"):
        return "text or list"
    words: dict[object, str] = {int: "whole number", float: "number", bool: "true or false", str: "text"}
    return words.get(kind, "section")
