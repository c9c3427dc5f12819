"""Parameters of which the default run tries a few, and `make test-all` all."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def slow_but(quick: Iterable[Any], values: Iterable[Any]) -> list[Any]:
    """All `values` as parameters of a test, a tuple for several; those that are not among `quick` are slow."""
    chosen = list(quick)
    rows = [(value, value if isinstance(value, tuple) else (value,)) for value in values]
    return [value if value in chosen else pytest.param(*row, marks=pytest.mark.slow) for value, row in rows]
