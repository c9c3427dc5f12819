"""What victims know besides their accuracy: with all classes weighted equally, and independent of a threshold."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean

from hpcule.evaluation.results import ProtectionDocument, SetDocument, victims, whole_recipes
from hpcule.measure.accuracy import ACCURACY, AREA, BALANCED
from hpcule.measure.ranking import CHANCE
from hpcule.victim.kinds import Kind


@dataclass(frozen=True)
class RankedRow:
    """The victims of one set: means over seeds, shares in [0, 1]."""

    kind: Kind
    title: str
    accuracy: float
    balanced: float
    area: float | None


def ranked(results: ProtectionDocument) -> dict[str, list[RankedRow]]:
    """Rows by the title of the recipe, for recipes whose victims name one class."""
    rows = {
        recipe["title"]: [_row(entry) for entry in recipe["sets"] if _is_ranked(entry)] for recipe in results["recipes"]
    }
    return {title: found for title, found in rows.items() if found}


def _row(entry: SetDocument) -> RankedRow:
    accuracy, balanced = (fmean(victim["measures"][name] for victim in entry["seeds"]) for name in (ACCURACY, BALANCED))
    return RankedRow(entry["set"], entry["title"], accuracy, balanced, mean_area(entry))


def _is_ranked(entry: SetDocument) -> bool:
    return all(BALANCED in victim["measures"] for victim in entry["seeds"])


def mean_area(entry: SetDocument) -> float | None:
    """Area under the curve, mean over seeds; None where it was not measured or the test set has one class."""
    found = [victim["measures"][AREA] for victim in entry["seeds"] if AREA in victim["measures"]]
    return fmean(found) if found and _is_ranked(entry) else None


@dataclass(frozen=True)
class Ranks:
    """A recipe's areas under the curve, and of what the clean control's has beyond chance the share that is left."""

    clean: float
    protected: float
    left: float


def best_ranks(results: ProtectionDocument) -> Ranks | None:
    """Areas of the recipe, without mixtures, whose protected victims rank clean test samples best; None without any."""
    found = []
    for recipe in whole_recipes(results):
        clean, protected = (mean_area(victims(recipe, name)) for name in ("clean", "protected"))
        if clean is not None and protected is not None and clean > CHANCE and "invalid_because" not in recipe:
            found.append(Ranks(clean, protected, (protected - CHANCE) / (clean - CHANCE)))
    return max(found, key=lambda ranks: ranks.protected, default=None)
