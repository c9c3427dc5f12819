"""What each doubling of a varied number, such as a batch size, does to the protection, seed by seed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hpcule.study.collect import Row, grouped
from hpcule.study.grid import Factors, name_of
from hpcule.study.paired import PairedDifference, compare_paired


@dataclass(frozen=True)
class Effect:
    """The slope of protection over log2 of a factor, at one value of everything else.

    Protection is the accuracy on clean test samples that a victim of the same seed loses by it: clean control minus
    protected, in [0, 1]. `slope` is its change with each doubling, over the seeds that have every level.
    """

    factor: str
    where: Factors
    levels: Sequence[float]
    slope: PairedDifference


def effects(rows: Sequence[Row], factors: Sequence[str]) -> list[Effect]:
    """The effects of every factor whose levels are two or more positive numbers; invalid cells are left out.

    Args:
        rows: of `collect`.
        factors: names of what varies, but for the seed.
    """
    found = []
    for factor in factors:
        levels = list(dict.fromkeys(row[factor] for row in rows))
        if len(levels) < 2 or not all(_is_positive_number(level) for level in levels):
            continue
        others = [name for name in factors if name != factor]
        for group in grouped([row for row in rows if not row["invalid"]], others):
            where = {name: group[0][name] for name in others}
            slopes = _slopes(group, factor, sorted(levels))
            if slopes:
                found.append(Effect(factor, where, sorted(levels), compare_paired(slopes, [0.0] * len(slopes))))
    return found


def sentences(found: Sequence[Effect]) -> list[str]:
    """One sentence a factor: how far its doublings reach, and whether they matter anywhere."""
    text = []
    for factor in dict.fromkeys(effect.factor for effect in found):
        mine = [effect for effect in found if effect.factor == factor]
        means = [100 * effect.slope.mean for effect in mine]
        reach = f"{min(means):+.1f}" if len(mine) == 1 else f"{min(means):+.1f} to {max(means):+.1f}"
        more, less = (sum(effect.slope.side == side for effect in mine) for side in (1, -1))
        text.append(
            f"Each doubling of the {name_of(factor)} changes the protection (clean minus protected accuracy) by "
            f"{reach} "
            f"points; at {more} of {len(mine)} settings of the other factors a larger value protects more, at {less} "
            f"it protects less, and at {len(mine) - more - less} the 95% confidence interval of the slope includes 0."
        )
    return text


def _is_positive_number(level: object) -> bool:
    return isinstance(level, int | float) and not isinstance(level, bool) and level > 0


def _slopes(group: Sequence[Row], factor: str, levels: Sequence[float]) -> list[float]:
    """One slope for each seed with a cell at every level."""
    seeds: dict[int, dict[float, float]] = defaultdict(dict)
    for row in group:
        seeds[row["seed"]][row[factor]] = row["clean_last"] - row["protected_last"]
    whole = [taken for taken in seeds.values() if len(taken) == len(levels)]
    return [float(np.polyfit(np.log2(levels), [taken[level] for level in levels], 1)[0]) for taken in whole]
