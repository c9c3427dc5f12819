"""How far publishing has moved samples, with the unit of each figure."""

from __future__ import annotations

from dataclasses import dataclass

from hpcule.store.budget import SYMBOLS, Budget


@dataclass
class LargestChange:
    """The largest change of all samples that were published so far.

    Attributes:
        budget: that of the store.
        levels: the largest value of the samples' grid.
        size: what the sample that was changed most takes of the budget, in the unit of the budget.
        value: largest change of a single value, in levels.
        stored: largest change of a stored value of a medical image; None where values are stored as levels.
        in_stored: whether the budget counts stored values.
    """

    budget: Budget
    levels: int
    size: float = 0.0
    value: float = 0.0
    stored: int | None = None
    in_stored: bool = False

    def add(self, size: float, value: float, stored: int | None = None) -> None:
        """Take a sample, or the one of several that was changed most."""
        self.size, self.value = max(self.size, size), max(self.value, value)
        if stored is not None:
            self.stored = max(self.stored or 0, stored)

    def __str__(self) -> str:
        of_levels = f"of {self.levels:,} levels"
        if self.in_stored:
            return _counted(round(self.size), "stored value")
        if self.stored is not None:
            return f"{self.size:.3g} {of_levels} of the window, up to {_counted(self.stored, 'stored value')}"
        if self.budget.norm == "linf" and not self.budget.free_pixels:
            return f"{self.size:.3g} {of_levels}" if self.size < 1000 else f"{round(self.size):,} {of_levels}"
        single = f"a value by up to {round(self.value):,} {of_levels}"
        if self.budget.norm == "l0":
            return f"{_counted(round(self.size), 'pixel')}, {single}"
        if self.budget.norm == "l2":
            return f"{self.size:,.0f} ({SYMBOLS['l2']}), {single}"
        return f"{self.size:.3g} {of_levels} apart from {_counted(self.budget.free_pixels, 'free pixel')}, {single}"


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
