"""Budgets by name: for people who would rather choose how much may be seen than a number of levels."""

from __future__ import annotations

from collections.abc import Mapping

from hpcule.config.errors import UsageError
from hpcule.config.run import BoundedConfig, LengthConfig
from hpcule.craft.table import find
from hpcule.data.source import Source

STRENGTHS: Mapping[str, float] = {"subtle": 0.5, "standard": 1.0, "strong": 2.0}
"""Factors of the usual budget: 8 levels of an 8-bit grid, or the length that a method's paper gives a perturbation."""
USUAL = 8


def epsilon(strength: str, name: str, source: Source) -> float:
    """The budget of a method on a source's grid, in levels.

    Raises:
        UsageError: the method's perturbation is not bounded by an epsilon.
    """
    method = find(name)
    if issubclass(method.config_class, BoundedConfig):
        usual = USUAL * source.levels / 255
    elif issubclass(method.config_class, LengthConfig):
        usual = method.budget(method.config_class(name=name), source.shape, source.levels).epsilon
    else:
        raise UsageError(
            f"--strength {strength}: {name} has no epsilon that it could set; docs/methods/{name}.md lists what it has"
        )
    return STRENGTHS[strength] * usual
