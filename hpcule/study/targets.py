"""Steps to a target over the batch size, with the critical batch size where the steps show one."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hpcule.study.collect import Row, grouped
from hpcule.study.critical_batch import CriticalBatch, fit_critical_batch
from hpcule.study.grid import Factors

COUNTED = (
    ("crafting", "craft.method.batch", "craft_steps_to_target"),
    ("victims on protected samples", "victim.batch", "protected_steps_to_target"),
    ("victims on clean samples", "victim.batch", "clean_steps_to_target"),
)
"""Who takes the steps, the batch size they depend on, and their column."""


@dataclass(frozen=True)
class TargetSteps:
    """Steps of one kind at one value of everything else, by batch size and seed, and the curve through them."""

    who: str
    factor: str
    where: Factors
    steps: Mapping[int, Sequence[int | None]]
    curve: CriticalBatch

    def sentence(self) -> str:
        """The finding in plain words."""
        if self.curve.critical_batch is not None and self.curve.interval is not None:
            low, high = self.curve.interval
            return (
                f"The critical batch size is {self.curve.critical_batch:.0f} samples ({low:.0f} to {high:.0f}), "
                f"the minimum number of steps {self.curve.minimum_steps:.0f}."
            )
        return f"The critical batch size is not identifiable: {self.curve.reason}."


def target_steps(rows: Sequence[Row], factors: Sequence[str]) -> list[TargetSteps]:
    """All fits that the rows of a study allow; factors that cannot matter to the one who takes the steps are left out.

    Args:
        rows: of `collect`.
        factors: names of what varies, but for the seed.
    """
    found = []
    for who, factor, column in COUNTED:
        if factor not in factors or all(row.get(column) is None for row in rows):
            continue
        others = [name for name in factors if name != factor and _matters(name, column)]
        for group in grouped(rows, others):
            steps = _by_batch(group, factor, column)
            where = {name: group[0][name] for name in others}
            found.append(TargetSteps(who, factor, where, steps, fit_critical_batch(steps)))
    return found


def _matters(factor: str, column: str) -> bool:
    of_craft = factor.startswith("craft.") or factor in ("rate", "variant")
    if column.startswith("craft"):
        return of_craft
    return not of_craft or column.startswith("protected")


def _by_batch(group: Sequence[Row], factor: str, column: str) -> dict[int, list[int | None]]:
    """Cells that share a craft or victim count once."""
    steps = {(row[factor], row["seed"]): row[column] for row in group}
    batches = itertools.groupby(sorted(steps), key=lambda place: place[0])
    return {batch: [steps[place] for place in places] for batch, places in batches}
