"""What a tournament came to: the finalists compared, who was dropped and why, and what to do next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict

from hpcule.evaluation.candidates import Candidate
from hpcule.evaluation.claims import GRADES, SAME, grade
from hpcule.evaluation.comparison import StoresDocument, summarise_stores
from hpcule.evaluation.results import (
    ProtectionDocument,
    RecipeDocument,
    best_noise,
    left,
    percent,
    victims,
    with_article,
    worst_recipe,
)

PROTECTS = ("held", "part")
"""Grades of a worst case with which a method is recommended."""


@dataclass(frozen=True)
class Standing:
    """What a candidate left to the attackers that were tried on it."""

    candidate: Candidate
    recipes: Sequence[RecipeDocument]

    @property
    def worst(self) -> RecipeDocument | None:
        """The attacker that learnt most; None where no clean control learnt."""
        valid = [recipe for recipe in self.recipes if "gain" not in recipe and "invalid_because" not in recipe]
        return max(valid, key=lambda recipe: victims(recipe, "protected")["mean"], default=None)

    @property
    def rank(self) -> float:
        """The less, the better: what that attacker reaches."""
        return victims(self.worst, "protected")["mean"] if self.worst else 1.0


class DroppedDocument(TypedDict):
    """A candidate that was not among the best of a round: what the most successful of its attackers reached."""

    name: str
    attackers: int
    worst: str
    protected: float
    left: float | None


class RecommendationDocument(StoresDocument):
    """The whole of results.json of a tournament; `stores` are the finalists."""

    kind: Literal["recommend"]
    budget_minutes: float
    recommended: str | None
    """Name of a store; None where nothing protects."""
    untried: list[str]
    """Attackers that time did not suffice for, or that cannot be had here with the reason."""
    dropped: list[DroppedDocument]
    unreached: list[str]
    """Candidates that time did not suffice for."""
    refused: Mapping[str, str]
    """Candidate -> why its method cannot take these samples."""


def choose(evaluated: Mapping[str, ProtectionDocument], candidates: Mapping[str, Candidate]) -> str | None:
    """The name of the recommended store: the best, or where it protects as well by its grade, a weaker strength of the
    same method; None where nothing protects, or not better than random noise does.

    Args:
        evaluated: results of the finalists by name, measured with the same attackers.
        candidates: of the same names.
    """
    best = min(evaluated, key=lambda name: evaluated[name]["worst_case"]["protected"])
    if not _protects(evaluated[best]):
        return None
    same = [
        name
        for name, results in evaluated.items()
        if candidates[name].method == candidates[best].method
        and _protects(results)
        and GRADES.index(grade(results)) <= GRADES.index(grade(evaluated[best]))
    ]
    return min(same, key=lambda name: candidates[name].level or 0)


def _protects(results: ProtectionDocument) -> bool:
    worst = worst_recipe(results)
    over_noise = best_noise(worst)["mean"] - victims(worst, "protected")["mean"]
    return grade(results) in PROTECTS and over_noise >= SAME


def recommendation(
    evaluated: Mapping[str, ProtectionDocument],
    standings: Sequence[Standing],
    *,
    minutes: float,
    untried: Sequence[str],
    unreached: Sequence[str],
    refused: Mapping[str, str],
) -> RecommendationDocument:
    """The results of a tournament.

    Args:
        evaluated: of the finalists.
        standings: of all candidates that were measured.
        minutes: the budget.
        untried, unreached, refused: see `RecommendationDocument`.
    """
    finalists = {one.candidate.name: one.candidate for one in standings if one.candidate.name in evaluated}
    return {
        "kind": "recommend",
        **summarise_stores(evaluated),
        "budget_minutes": minutes,
        "recommended": choose(evaluated, finalists),
        "untried": list(untried),
        "dropped": [_dropped(one) for one in standings if one.candidate.name not in evaluated],
        "unreached": list(unreached),
        "refused": dict(refused),
    }


def _dropped(standing: Standing) -> DroppedDocument:
    worst = standing.worst
    return {
        "name": standing.candidate.name,
        "attackers": len(standing.recipes),
        "worst": worst["title"] if worst else "no clean control learnt",
        "protected": standing.rank,
        "left": left(worst) if worst else None,
    }


def advice(results: RecommendationDocument, evaluated: Mapping[str, ProtectionDocument], data: str) -> list[str]:
    """What to do next, and on what evidence, for a reader who knows nothing of the field.

    Args:
        results: what became of the candidates.
        evaluated: results of the finalists by name.
        data: how the source is called on the command line.
    """
    said = [_verdict(results, evaluated, data)]
    if results["untried"]:
        said.append(f"Not tried, so not covered: {'; '.join(results['untried'])}.")
    if results["dropped"]:
        rows = [f"{row['name']} ({_reached(row)})" for row in results["dropped"]]
        said.append(f"Measured and dropped, with what the most successful attacker reached: {'; '.join(rows)}.")
    if results["unreached"]:
        said.append(
            f"Not reached within {results['budget_minutes']:g} minutes: {', '.join(results['unreached'])}. The "
            "same command with a larger --budget goes on there."
        )
    return said + [f"{name} cannot take these samples: {why}." for name, why in results["refused"].items()]


def _reached(row: DroppedDocument) -> str:
    tried = "1 attacker" if row["attackers"] == 1 else f"{row['attackers']} attackers"
    return f"{percent(row['protected'])}, {row['worst']}, {tried}"


def _verdict(results: RecommendationDocument, evaluated: Mapping[str, ProtectionDocument], data: str) -> str:
    if results["status"] == "invalid":
        return (
            "No conclusion: networks did not learn from the clean images either. Give them more images "
            "(samples) or more steps (victim.steps)."
        )
    name = results["recommended"] or results["stores"][0]["name"]
    found = evaluated[name]
    worst = worst_recipe(found)
    share = left(worst) or 0.0
    evidence = (
        f"Of what networks learn from the clean images beyond chance, the most successful of {len(results['titles'])} "
        f"attackers ({worst['title']}) still learns {percent(max(share, 0.0))} from {name}: "
        f"{with_article(worst['measure'])} of {percent(victims(worst, 'protected')['mean'])} instead of "
        f"{percent(victims(worst, 'clean')['mean'])}, where guessing gives {percent(worst['chance'])}; from images "
        "with random noise it reaches "
        f"{percent(best_noise(worst)['mean'])}."
    )
    if results["recommended"] is None:
        return (
            "Nothing that was tried protects this collection: attackers still learn too much, or random noise does as "
            "well. Do not publish it in the belief that it cannot be trained on; restrict who gets it instead. "
            f"{evidence}"
        )
    row = next(row for row in results["stores"] if row["name"] == name)
    epsilon = f" --set method.epsilon={row['epsilon']:g}" if row["norm"] == "linf" and row["epsilon"] < 255 else ""
    return (
        f"Recommended: {row['title']} ({name}). {evidence} It was measured on some of the images. Next: craft it for "
        f"all of them, `hpcule craft {row['method']} --data {data}{epsilon} --out STORE`, and measure that store, "
        f"`hpcule evaluate STORE --data {data} --suite clinic`."
    )
