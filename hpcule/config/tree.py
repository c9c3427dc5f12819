"""A typed tree of settings: frozen dataclasses, filled from YAML and from `a.b=c` overrides."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar, cast

import yaml

from hpcule.config.errors import UsageError
from hpcule.config.plain_yaml import MOST_CHARACTERS, YamlError, parse_yaml

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T")
Tree = dict[str, Any]
"""Plain values by name, sections within sections: settings or JSON before they are read into a type."""


class Written(Protocol):
    """A type of setting that users write as a text or a list."""

    @classmethod
    def parse(cls, value: object) -> Self:
        """Read what a user wrote.

        Raises:
            UsageError: it cannot be read.
        """

    def written(self) -> str | list[str]:
        """The text or list that `parse` reads."""


_hints = functools.cache(typing.get_type_hints)
"""Types of the fields of a class, for studies that build the same few classes once for each of their cells."""


def build_config(cls: type[T], tree: Mapping[str, object], prefix: str = "") -> T:
    """Fill the dataclass `cls` from a tree of plain values.

    A value that already is an instance of its field's type is taken as it is, so that a caller can build a
    polymorphic part (the method) first. A field whose type is `Written` reads its plain value itself. A class may name
    settings that it no longer has in `replaced`, with what to write instead of a value, and in `refused` those that it
    cannot have, with the reason.

    Raises:
        UsageError: an unknown setting (the nearest valid one is named), a value of the wrong type, or one that the
            dataclass' own validation (ValueError in `__post_init__`) refuses.
    """
    hints = _hints(cast(Any, cls))
    names = [field.name for field in dataclasses.fields(cast(Any, cls))]
    for key in tree:
        if key in getattr(cls, "removed", ()):
            raise UsageError(f"{prefix}{key}: earlier versions had this setting, without any effect: leave it out")
        if key not in names:
            if reason := getattr(cls, "refused", {}).get(key):
                raise UsageError(f"{prefix}{key}={tree[key]}: {reason}")
            if instead := getattr(cls, "replaced", {}).get(key):
                raise UsageError(f"{prefix}{key}={tree[key]}: write {prefix}{instead(tree[key])}")
            raise UsageError(unknown("setting", prefix + str(key), [prefix + name for name in names]))
    values = {key: _convert(hints[key], value, prefix + key) for key, value in tree.items()}
    try:
        return cls(**values)
    except ValueError as error:
        raise UsageError(f"{prefix}{error}") from None
    except TypeError:
        required = [f.name for f in dataclasses.fields(cast(Any, cls)) if _is_required(f) and f.name not in values]
        raise UsageError(f"missing setting {', '.join(prefix + name for name in required)}") from None


def unknown(what: str, seen: str, valid: Iterable[str]) -> str:
    """One line for an unknown name: what was seen, the nearest valid one, and all valid ones."""
    names = list(valid)
    near = difflib.get_close_matches(seen, names, n=1, cutoff=0.4)
    hint = f": did you mean '{near[0]}'?" if near else "."
    return f"unknown {what} '{seen}'{hint} Valid: {', '.join(names)}"


def with_overrides(tree: Mapping[str, object], overrides: Iterable[str]) -> Tree:
    """Return a copy of `tree` with `a.b=c` assignments applied in order; values are read as YAML.

    Raises:
        UsageError: an override without '=', or one that goes through something that is not a section.
    """
    result = _copy(tree)
    for override in overrides:
        path, equals, text = override.partition("=")
        keys = path.strip().split(".")
        if not equals or not all(keys):
            raise UsageError(f"--set {override}: expected NAME=VALUE, for example method.epsilon=8")
        try:
            value = parse_yaml(text)
        except YamlError:
            raise UsageError(f"--set {override}: the value is not valid YAML; quote texts that begin with *") from None
        section = result
        for key in keys[:-1]:
            section = section.setdefault(key, {})
            if not isinstance(section, dict):
                raise UsageError(f"--set {override}: '{key}' is a value, not a section")
        section[keys[-1]] = value
    return result


def merged(base: Mapping[str, object], over: Mapping[str, object]) -> Tree:
    """Return `base` with the values of `over` laid on top, section by section."""
    result = _copy(base)
    for key, value in over.items():
        below = result.get(key)
        result[key] = (
            merged(below, value) if isinstance(below, dict) and isinstance(value, Mapping) else _copy_value(value)
        )
    return result


def flat(tree: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """The values of all sections by their full names, `method.epsilon` for example."""
    found: dict[str, object] = {}
    for name, value in tree.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return found


def to_tree(config: DataclassInstance) -> Tree:
    """The plain values of a dataclass tree, ready for YAML or JSON."""
    return cast(Tree, _plain(config))


def load_yaml(path: Path) -> Tree:
    """Read a YAML file that holds one mapping.

    Raises:
        UsageError: the file is absent, is not YAML, or holds something else than a mapping.
    """
    try:
        # One character more than is read at most, which may take four bytes.
        with path.open("rb") as file:
            tree = parse_yaml(file.read(4 * MOST_CHARACTERS + 4).decode())
    except OSError as error:
        raise UsageError(f"cannot read the configuration {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not valid YAML: no UTF-8") from None
    except YamlError as error:
        raise UsageError(f"{path} is not valid YAML{error}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise UsageError(f"{path} must hold a mapping of settings, not a {type(tree).__name__}")
    return tree


def dump_yaml(tree: Mapping[str, object]) -> str:
    """The tree as YAML, keys in their own order."""
    return yaml.safe_dump(_plain(tree), sort_keys=False, allow_unicode=True)


def _convert(hint: Any, value: object, name: str) -> Any:
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        options = [option for option in typing.get_args(hint) if option is not type(None)]
        if value is None and len(options) < len(typing.get_args(hint)):
            return None
        return _convert(options[0], value, name)
    if origin is typing.Literal:
        valid = typing.get_args(hint)
        if value not in valid:
            raise UsageError(f"{name}={value}: valid are {', '.join(map(str, valid))}")
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise UsageError(f"{name}={value}: expected a list, for example [0, 1, 2]")
        return tuple(_convert(typing.get_args(hint)[0], item, name) for item in value)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise UsageError(f"{name}={value}: '{name}' is a section, set one of its values instead")
        return _copy(value)
    if dataclasses.is_dataclass(hint):
        if isinstance(value, cast(type, hint)):
            return value
        if hasattr(hint, "parse"):
            return _parse(cast(type[Written], hint), value, name)
        if not isinstance(value, Mapping):
            raise UsageError(f"{name}={value}: '{name}' is a section, set one of its values instead")
        return build_config(cast(type, hint), value, name + ".")
    return _convert_scalar(hint, value, name)


def _parse(hint: type[Written], value: object, name: str) -> Written:
    try:
        return hint.parse(value)
    except UsageError as error:
        raise UsageError(f"{name}: {error}") from None


def _convert_scalar(hint: Any, value: object, name: str) -> Any:
    if hint is float and not isinstance(value, bool):
        # YAML 1.1 reads 1e-4 (no dot) as a string.
        try:
            number = float(cast(str, value))
        except (TypeError, ValueError, OverflowError):
            raise UsageError(f"{name}={value}: expected a number") from None
        if not math.isfinite(number):
            raise UsageError(f"{name}={value}: expected a finite number")
        return number
    if hint is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if hint is str and isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        expected = {int: "a whole number", bool: "true or false", str: "a text"}.get(hint, hint.__name__)
        raise UsageError(f"{name}={value}: expected {expected}")
    return value


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _copy(tree: Mapping[str, object]) -> Tree:
    return {key: _copy_value(value) for key, value in tree.items()}


def _copy_value(value: object) -> Any:
    return _copy(value) if isinstance(value, Mapping) else value


def _plain(value: Any) -> Any:
    if hasattr(value, "written"):
        return value.written()
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
