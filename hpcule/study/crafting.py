"""What a craft's journal reports: how its loss fell, and how noisy its gradients were."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from hpcule.craft.journal import Entry, read_journal
from hpcule.study.documents import CraftingDocument, NoiseScaleDocument
from hpcule.study.folder import damage_named
from hpcule.study.noise_scale import NoiseSums
from hpcule.world.gradient_norms import GradientNorms

SMOOTH = 5
"""Steps that a running mean of the loss goes over."""
PERIODS = 4
"""Equal parts of a run; each has a noise scale of its own, because it changes on the way."""


@dataclass(frozen=True)
class LossCurve:
    """The figure that crafting lowers: (step, loss), with the mean over clusters where they are trained one by one."""

    points: Sequence[tuple[int, float]]

    @property
    def first(self) -> float:
        """Where it begins."""
        return self.points[0][1]

    @property
    def last(self) -> float:
        """Where it ends: the mean over the last tenth of the points."""
        return fmean(loss for _, loss in self.points[-max(1, len(self.points) // 10) :])

    def steps_to(self, share: float) -> int | None:
        """Steps after which the running mean has first come down to a share of where it began; None if never."""
        losses = [loss for _, loss in self.points]
        for index, (step, _) in enumerate(self.points):
            if index + 1 >= SMOOTH and fmean(losses[index + 1 - SMOOTH : index + 1]) <= share * self.first:
                return step + 1
        return None


def loss_curve(entries: Sequence[Entry], figure: str) -> LossCurve | None:
    """The curve of one figure; None where no step has it."""
    by_step = defaultdict(list)
    for entry in entries:
        if figure in entry:
            by_step[int(entry["step"])].append(float(entry[figure]))
    return LossCurve([(step, fmean(by_step[step])) for step in sorted(by_step)]) if by_step else None


def samples_in(entries: Sequence[Entry], steps: int) -> int | None:
    """Samples that the first `steps` steps have taken, as counted; the mean over clusters where they are trained one by
    one. None where they were not counted."""
    taken = defaultdict(list)
    for entry in entries:
        if "batches" in entry and entry["step"] < steps:
            taken[entry.get("cluster", 0)].append(int(entry["samples"]))
    return round(fmean(map(sum, taken.values()))) if taken else None


def norms_of(entries: Sequence[Entry]) -> list[tuple[int, GradientNorms]]:
    """The gradient norms of all steps that have them, cluster by cluster."""
    names = ("groups", "samples", "weighted_squares", "squared_norm")
    return [(entry["step"], GradientNorms(*(entry[name] for name in names))) for entry in entries if names[-1] in entry]


def noise_scales(norms: Sequence[tuple[int, GradientNorms]]) -> list[NoiseScaleDocument]:
    """The noise scale of the whole run, then of each quarter: first and last step, scale, interval, reason.

    A bound that is infinite is None.
    """
    if not norms:
        return []
    end = max(step for step, _ in norms) + 1
    bounds = [round(end * part / PERIODS) for part in range(PERIODS + 1)]
    periods = [(0, end), *itertools.pairwise(bounds)]
    return [_noise_scale(norms, first, after) for first, after in periods if first < after]


def _noise_scale(norms: Sequence[tuple[int, GradientNorms]], first: int, after: int) -> NoiseScaleDocument:
    sums = NoiseSums()
    for step, found in norms:
        if first <= step < after:
            sums.add(found)
    estimate = sums.estimate()
    low, high = estimate.interval or (None, None)
    return {
        "first_step": first,
        "last_step": after - 1,
        "noise_scale": estimate.noise_scale,
        "low": low if low is None or math.isfinite(low) else None,
        "high": high if high is None or math.isfinite(high) else None,
        "reason": estimate.reason,
    }


def crafting_facts(store: Path, figure: str | None, target: float | None) -> CraftingDocument:
    """Return facts of a craft: first and last loss, steps to `target` (a share of the first), noise scales.

    Raises:
        StoreError: the journal holds what no craft has noted.
    """
    with damage_named(store / "run", "remove its log-*.jsonl, which nothing else needs"):
        return _facts(store, figure, target)


def _facts(store: Path, figure: str | None, target: float | None) -> CraftingDocument:
    entries = read_journal(store)
    curve = loss_curve(entries, figure) if figure else None
    reached = curve.steps_to(target) if curve and target is not None else None
    saturated, moved, norms = loss_curve(entries, "saturated"), loss_curve(entries, "moved"), norms_of(entries)
    return {
        "loss_first": curve.first if curve else None,
        "loss_last": curve.last if curve else None,
        "loss_steps": curve.points[-1][0] + 1 if curve else None,
        "steps_to_target": reached,
        "samples_to_target": None if reached is None else samples_in(entries, reached),
        "saturated": saturated.last if saturated else None,
        "moved_first": moved.first if moved else None,
        "moved_last": moved.last if moved else None,
        "noise_scales": noise_scales(norms),
    }
