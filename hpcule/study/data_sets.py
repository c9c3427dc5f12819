"""What a study finds on each of its data sets, averaged over everything else that it varies but for the methods."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from hpcule.measure.accuracy import Summary, summarise
from hpcule.study.collect import RANDOM, Row, grouped
from hpcule.study.config import DATA
from hpcule.study.paired import PairedDifference, compare_paired
from hpcule.victim.kinds import TITLES, Kind


@dataclass(frozen=True)
class DataSetResult:
    """One data set, or one variant on it, over the seeds that have a valid cell.

    Every figure is first averaged over a seed's valid cells, so that the seeds stay the independent repetitions.
    """

    values: Sequence[Any]
    """Values of `data` and of the factors by which results are kept apart."""
    samples: int
    chance: float
    cells: int
    invalid: int
    """Cells whose clean control did not learn."""
    accuracy: Mapping[Kind, Summary]
    leads: Mapping[Kind, PairedDifference]
    """Accuracy on a kind of random noise minus accuracy on protected: what the method adds."""
    craft_batches: str
    victim_batches: str


def data_set_results(rows: Sequence[Row], apart: Sequence[str]) -> list[DataSetResult]:
    """The results of each data set.

    Args:
        rows: of `collect`, of a study whose factor is `data`.
        apart: names of further factors whose values get results of their own.
    """
    return [_result(group, [DATA, *apart]) for group in grouped(rows, [DATA, *apart])]


def _result(group: Sequence[Row], names: Sequence[str]) -> DataSetResult:
    valid = [row for row in group if not row["invalid"]]
    kinds = [kind for kind in TITLES if f"{kind}_last" in group[0]]
    values = {kind: _by_seed(valid, f"{kind}_last") for kind in kinds} if valid else {}
    return DataSetResult(
        values=[group[0][name] for name in names],
        samples=group[0]["samples"],
        chance=group[0]["chance"],
        cells=len(group),
        invalid=len(group) - len(valid),
        accuracy={kind: summarise(found) for kind, found in values.items()},
        leads={kind: compare_paired(values[kind], values["protected"]) for kind in RANDOM if kind in values},
        craft_batches=_batches(group, "craft_batch_asked", "craft_batch"),
        victim_batches=_batches(group, "protected_batch_asked", "protected_batch"),
    )


def _by_seed(rows: Sequence[Row], column: str) -> list[float]:
    """Means over the cells of each seed."""
    seeds = defaultdict(list)
    for row in rows:
        seeds[row["seed"]].append(row[column])
    return [fmean(found) for found in seeds.values()]


def _batches(rows: Sequence[Row], asked: str, taken: str) -> str:
    """The batches that were asked for, each with the one that was taken where that is another."""
    pairs = {(row[asked], row[taken]) for row in rows if row[taken] is not None}
    shown = sorted(pairs, key=lambda pair: (pair[0] or pair[1], pair[1]))
    return ", ".join(str(took) if wanted in (took, None) else f"{wanted} (taken: {took})" for wanted, took in shown)
