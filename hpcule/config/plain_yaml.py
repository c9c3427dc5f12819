"""YAML of people and of strangers: plain values, each key once, and nothing that grows when it is read."""

from __future__ import annotations

from typing import Any, Protocol

import yaml

MOST_CHARACTERS = 1 << 20
DEEPEST = 40
"""A list or a mapping inside another, so often."""


class Mark(Protocol):
    """Where something stands in a text; both of PyYAML's parsers have a class for it."""

    line: int
    """Number of the line, counted from 0."""


class YamlError(ValueError):
    """A text is not YAML that we read; `str` goes on behind "is not valid YAML": " in line 3: why"."""

    def __init__(self, reason: str, mark: Mark | None = None) -> None:
        super().__init__(f" in line {mark.line + 1}: {reason}" if mark is not None else f": {reason}")


class _Loader(yaml.SafeLoader):
    """PyYAML's, which would let the last of equal keys win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return the mapping of a node after checking its keys."""
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for number, key in enumerate(keys):
            if key in keys[:number]:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{str(key)[:40]!r} stands there twice", node.value[number][0].start_mark
                )
        return super().construct_mapping(node, deep)


def parse_yaml(text: str) -> Any:
    """Plain values from YAML.

    Raises:
        YamlError: no YAML, too long or too deep, an alias (a few lines of which stand for gigabytes), or a key twice.
    """
    if len(text) > MOST_CHARACTERS:
        raise YamlError(f"more than {MOST_CHARACTERS} characters")
    try:
        depth = 0
        for event in yaml.parse(text, _Loader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:
                raise YamlError(f"nested deeper than {DEEPEST} times", event.start_mark)
            if isinstance(event, yaml.AliasEvent):
                raise YamlError(f"*{event.anchor} stands for something else: write it out", event.start_mark)
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        problem = getattr(error, "problem", None) or "unreadable characters"
        raise YamlError(problem, getattr(error, "problem_mark", None)) from None
    except YamlError:
        raise
    except (ValueError, OverflowError) as error:  # a date or a number that cannot be
        raise YamlError(str(error)) from None
