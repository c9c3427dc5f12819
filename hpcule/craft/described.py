"""The settings of a method as a table: what each is, its values in all presets, and what is valid."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import get_args

from hpcule.config.described import described
from hpcule.config.run import Preset
from hpcule.config.tree import to_tree
from hpcule.craft.table import configure, find

PRESETS: tuple[Preset, ...] = get_args(Preset)


@dataclass(frozen=True)
class Setting:
    """One setting of a method."""

    name: str
    """Name for `--set`, such as `method.epsilon`."""
    type: str
    values: dict[str, object]
    """Value by preset, with what follows from other settings written out; None is null."""
    valid: str
    description: str

    def document(self) -> dict[str, object]:
        """Return the row as plain values for JSON."""
        return asdict(self)


def settings_of(method: str) -> list[Setting]:
    """All settings of a method.

    Raises:
        UsageError: there is no such method.
    """
    parts = described(find(method).config_class)
    trees = {
        preset: to_tree(configure(method, "DATA", preset=preset, file={}, overrides=[]).method) for preset in PRESETS
    }
    return [
        Setting(
            f"method.{part.name}",
            part.type,
            {preset: tree[part.name] for preset, tree in trees.items()},
            part.valid,
            part.description,
        )
        for part in parts
        if part.name != "name"
    ]
