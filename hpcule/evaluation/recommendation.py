"""What a tournament came to: the finalists compared, who was dropped and why, and what to do next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from shlex import quote
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
    """Attackers that time did not suffice for."""
    left_out: list[str]
    """Attackers that cannot be had here, with the reason."""
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
    left_out: Sequence[str],
    unreached: Sequence[str],
    refused: Mapping[str, str],
) -> RecommendationDocument:
    """The results of a tournament.

    Args:
        evaluated: of the finalists.
        standings: of all candidates that were measured.
        minutes: the budget.
        untried, left_out, unreached, refused: see `RecommendationDocument`.
    """
    finalists = {one.candidate.name: one.candidate for one in standings if one.candidate.name in evaluated}
    return {
        "kind": "recommend",
        **summarise_stores(evaluated),
        "budget_minutes": minutes,
        "recommended": choose(evaluated, finalists),
        "untried": list(untried),
        "left_out": list(left_out),
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


@dataclass(frozen=True)
class Advice:
    """What to do, for a reader who knows nothing of the field.

    Attributes:
        answer: whether something protects, and what.
        evidence: the figures behind the answer.
        steps: what to do, in this order.
        limits: what was not tried, and why.
    """

    answer: str
    evidence: str
    steps: list[str]
    limits: list[str]


def advice(results: RecommendationDocument, evaluated: Mapping[str, ProtectionDocument], data: str) -> Advice:
    """What follows from a tournament.

    Args:
        results: what became of the candidates.
        evaluated: results of the finalists by name.
        data: how the source is called on the command line.
    """
    name = results["recommended"] or results["stores"][0]["name"]
    row, limits = next(row for row in results["stores"] if row["name"] == name), _limits(results)
    if results["status"] == "invalid":
        answer = (
            "No conclusion: networks did not learn from the clean images either, so nothing can be said of protection."
        )
        more = (
            "Give them more images (--set samples=N) or more steps (--set victim.steps=N), and run the command again."
        )
        return Advice(answer, f"{results['stores'][0]['name']}: {evaluated[name]['invalid_because']}.", [more], limits)
    evidence = _evidence(results, evaluated[name], name)
    if results["recommended"] is None:
        return Advice(_nothing(results), evidence, _without_protection(results), limits)
    protection = evaluated[name]["protection"]
    bounded = row["norm"] == "linf" and row["epsilon"] < protection["levels"]
    strength = (
        f", which changes no value by more than {row['epsilon']:g} of {protection['levels']} levels" if bounded else ""
    )
    answer = f"Recommended: protect these images with {row['title']} ({name}){strength}."
    if results["untried"]:
        answer = (
            f"Not decided yet, the best so far: {row['title']} ({name}){strength}. Only {_number(results)} met it in "
            f"the time, and those that are left may still undo it."
        )
    epsilon = f" --set method.epsilon={row['epsilon']:g}" if bounded else ""
    return Advice(answer, evidence, _with_protection(results, row["method"], quote(data), epsilon), limits)


def _number(results: RecommendationDocument) -> str:
    count = len(results["titles"])
    return "1 attacker" if count == 1 else f"{count} attackers"


def _evidence(results: RecommendationDocument, found: ProtectionDocument, name: str) -> str:
    worst = worst_recipe(found)
    share = max(left(worst) or 0.0, 0.0)
    protected, clean = (percent(victims(worst, kind)["mean"]) for kind in ("protected", "clean"))
    return (
        f"An attacker is somebody who trains a network on the published images; {_number(results)} tried. The most "
        f"successful one ({worst['title']}) still learns {percent(share)} of what the clean images teach beyond "
        f"guessing from {name}: {with_article(worst['measure'])} of {protected} on new images, instead of {clean} "
        f"after training on the clean ones, where guessing gives {percent(worst['chance'])}. After training on images "
        f"with random noise of the same strength it is {percent(best_noise(worst)['mean'])}. Measured on "
        f"{found['data']['train']:,} of the images."
    )


def _nothing(results: RecommendationDocument) -> str:
    return (
        "Nothing that was tried protects this collection: attackers still learn too much from the best candidate, or "
        "random noise does as well."
    )


def _without_protection(results: RecommendationDocument) -> list[str]:
    steps = ["Do not publish the images in the belief that nobody can train on them. Restrict who gets them instead."]
    if results["unreached"] or results["untried"]:
        steps.append(
            "Some methods or attackers were not tried in the time (see below): the same command with a larger --budget "
            "goes on where this one ended."
        )
    return [*steps, "If a visible change is acceptable, try stronger perturbations: --set levels=[32]."]


def _with_protection(results: RecommendationDocument, method: str, data: str, epsilon: str) -> list[str]:
    larger = "Run the same command with a larger --budget: it goes on where this one ended."
    return [
        *([larger] if results["untried"] else []),
        f"Craft the perturbation for all images: hpcule craft {method} --data {data}{epsilon} --out STORE",
        f"Measure what was crafted: hpcule evaluate STORE --data {data} --suite clinic. Go on only if that report says "
        "that the protection held, or held in part.",
        f"Write the protected copy: hpcule export STORE --data {data} --out COPY",
        "Publish COPY alone. Keep the originals and STORE private: whoever has either can remove the protection. What "
        "was published clean before stays unprotected.",
    ]


def _limits(results: RecommendationDocument) -> list[str]:
    said = []
    if results["untried"]:
        said.append(f"Attackers not tried in the time, so not covered: {'; '.join(results['untried'])}.")
    said += [f"Not covered either: {sentence}." for sentence in results["left_out"]]
    if results["unreached"]:
        said.append(
            f"Methods not reached within {results['budget_minutes']:g} minutes: {', '.join(results['unreached'])}."
        )
    return said + [f"{name} cannot take these samples: {why}." for name, why in results["refused"].items()]
