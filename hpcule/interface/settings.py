"""Settings as Python callers write them, to the tree that configurations are built from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hpcule.config.errors import UsageError
from hpcule.config.tree import Tree, merged


def nested(settings: Mapping[str, object]) -> Tree:
    """A tree of plain values from dotted names: {"world.threads": 1} and {"world": {"threads": 1}} are the same.

    Raises:
        UsageError: a name is no text, or goes through a setting that is a value.
    """
    tree: Tree = {}
    for name, value in settings.items():
        if not isinstance(name, str):
            raise UsageError(f"settings: {name!r} is no name of a setting; valid are texts such as 'world.threads'")
        branch: Tree = {}
        *sections, last = name.split(".")
        inner = branch
        for section in sections:
            inner[section] = inner = {}
        inner[last] = _plain(value)
        tree = merged(tree, branch)
    return tree


def _plain(value: object) -> object:
    """Numbers of numpy and torch as Python's, paths as texts."""
    if isinstance(value, Mapping):
        return nested(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    item = getattr(value, "item", None)
    if callable(item) and getattr(value, "ndim", None) == 0:
        return item()
    return value
