"""What the numbers say, in words, and what they do not say."""

from __future__ import annotations

from statistics import fmean
from typing import Literal, get_args

from hpcule.evaluation.ranked import best_ranks
from hpcule.evaluation.results import (
    ProtectionDocument,
    RecipeDocument,
    RepetitionDocument,
    best_noise,
    noun,
    percent,
    percentage_points,
    points_range,
    victims,
    whole_recipes,
    with_article,
    worst_recipe,
)
from hpcule.measure.accuracy import ACCURACY, BALANCED, Summary, paired_difference, wilson
from hpcule.victim.kinds import Kind

Grade = Literal["invalid", "held", "part", "weak", "none"]
GRADES: tuple[Grade, ...] = get_args(Grade)
"""Grades from "invalid", which says nothing, through the best to the worst."""

HELD, PART = 0.2, 0.7
"""Shares of what the clean control learns beyond chance: up to the first is left where a protection held, up to the
second where it held in part. A convention of this report, which states both numbers."""

SAME = 0.02
"""Accuracies that differ by less than two points are called the same, with however many seeds."""

OPENING = {
    "held": "The protection held",
    "part": "The protection held in part",
    "weak": "The protection is weak",
    "none": "The protection did not hold",
}


def grade(results: ProtectionDocument) -> Grade:
    """How much protection is left in the worst case."""
    if results["status"] == "invalid":
        return "invalid"
    recipe = worst_recipe(results)
    chance = recipe["chance"]
    clean, protected = victims(recipe, "clean")["mean"], victims(recipe, "protected")["mean"]
    if min(clean - protected, clean - chance) < SAME:
        return "none"
    return _graded((protected - chance) / (clean - chance))


def _graded(left: float) -> Grade:
    return "held" if left <= HELD else "part" if left <= PART else "weak"


def verdict(results: ProtectionDocument) -> str:
    """Whether the protection held in the worst case, compared with its controls, and whether scores reveal more."""
    found = grade(results)
    if found == "invalid":
        return f"INVALID: {results['invalid_because']}, so these results say nothing about the protection."
    recipe, samples = worst_recipe(results), noun(results)
    clean, protected = (victims(recipe, kind)["mean"] for kind in ("clean", "protected"))
    control = best_noise(recipe)
    noise, spectrum = control["mean"], " of the same spectrum" if control["set"] == "spectrum" else ""
    as_good = ", so random noise protects equally well" if found != "none" and noise - protected < SAME else ""
    who = "victims"
    if len(whole_recipes(results)) > 1:
        who = f"the most successful victims ({recipe['title']})"
    return (
        f"{OPENING[found]}{' (reduced settings)' if results['reduced'] else ''}: {who} trained on the protected copy "
        f"of {results['data']['name']} reach {with_article(recipe['measure'])} of {percent(protected)} on clean test "
        f"{samples}, compared with {percent(clean)} after training on clean {samples} and {percent(noise)} on "
        f"{samples} with random noise{spectrum}{as_good}; chance level is {percent(recipe['chance'])}."
        f"{_still_ranked(results)}"
    )


def _still_ranked(results: ProtectionDocument) -> str:
    """A sentence if the scores of protected victims separate classes better than their answers do, else nothing."""
    ranks = best_ranks(results)
    if ranks is None or GRADES.index(_graded(ranks.left)) <= GRADES.index(grade(results)):
        return ""
    return (
        f" However, their scores still rank the classes of clean test {noun(results)}: the area under the ROC curve is "
        f"{ranks.protected:.2f}, compared with {ranks.clean:.2f} after training on clean ones and 0.5 at chance level, "
        "so another decision threshold would recover accuracy."
    )


def warnings(results: ProtectionDocument) -> list[str]:
    """Paragraphs that limit what the figures mean, to be read first; empty if there are none."""
    paragraphs, samples = [], noun(results)
    if results["status"] == "invalid":
        paragraphs.append(
            f"INVALID: {results['invalid_because']}. A victim that does not learn from clean {samples} cannot show "
            f"that the protection is what prevents learning. Draw no conclusions about the protection from these "
            f"figures; train longer, or on more {samples}, and evaluate again."
        )
    if results["reduced"]:
        paragraphs.append(
            f"The settings are reduced (preset {results['protection']['preset']}): the run shows in little time "
            "that everything works. Its figures are not comparable with published ones or with those of full settings."
        )
    paragraphs += [f"Not everything was tried: {sentence}." for sentence in results.get("left_out", ())]
    if results["status"] != "invalid":
        for recipe in whole_recipes(results):
            paragraphs += _recipe_warnings(recipe, samples)
    if _fewest_seeds(results) == 1:
        paragraphs.append(
            "Only one seed was trained, so there are no confidence intervals; another seed may differ by several "
            "points."
        )
    return paragraphs


def claims(results: ProtectionDocument) -> list[str]:
    """Paragraphs on what the figures do and do not claim; the warnings come first."""
    data, protection, samples = results["data"], results["protection"], noun(results)
    worst = worst_recipe(results)
    low, high = wilson(results["worst_case"]["protected"] * worst["effective"], worst["effective"])
    titles = ", ".join(recipe["title"] for recipe in results["recipes"])
    seen = "all" if data["train"] == protection["n"] else f"{data['train']:,} of the"
    scope = (
        f"The figures hold for victims trained on the published copy of {data['name']} with the recipes "
        f"shown ({titles}), on {seen} {protection['n']:,} protected {samples}, and tested on "
        f"{data['test']:,} clean ones. Longer training, another network, other pre-trained weights or other data may "
        "reach a higher accuracy."
    )
    holders = (
        f"They do not hold against an attacker who has clean copies of the {samples}, or the perturbation, which can "
        "then be removed. Networks learn from the clean part of a training set that mixes protected and clean "
        f"{samples}."
    )
    if protection["unit"] != "sample":
        holders += (
            f" All {samples} of a {protection['unit']} have the same perturbation: one that is known clean and as "
            f"published shows it, and it can be taken off all others of the {protection['unit']} (hpcule probe strip "
            "measures what is left)."
        )
    holders = " ".join([holders, *(_mixture(recipe, samples) for recipe in results["recipes"] if "gain" in recipe)])
    countermeasures = (
        "Countermeasures that are not among the recipes were not tried and are not covered. Protections of this kind "
        "have been weakened or removed by recompression, strong augmentation, adversarial training and purification "
        "with generative models."
    )
    if "weaknesses" in protection["facts"]:
        countermeasures += f" Known weakness of this method: {protection['facts']['weaknesses']}."
    counting = (
        f"{_chances(results)} Intervals are 95% Student-t confidence intervals over seeds: they cover the randomness "
        f"of training, not the choice of test {samples}. With {data['test']:,} test {samples} that choice alone makes "
        f"the {worst['measure']} of one victim uncertain by about ±{100 * (high - low) / 2:.1f} points."
    )
    wording = (
        f"In the verdict, “held” means that the most successful victims retain at most {HELD:.0%} of what the clean "
        f"control learns beyond chance, “in part” at most {PART:.0%}, and “did not hold” that they are within "
        f"{100 * SAME:.0f} points of their clean control. What counts is the test after the last epoch."
    )
    return [*warnings(results), scope, holders, countermeasures, counting, wording, _senses(results)]


def _chances(results: ProtectionDocument) -> str:
    """What guessing reaches, by measure."""
    found = {recipe["measure"]: recipe["chance"] for recipe in results["recipes"]}
    if list(found) == [ACCURACY]:
        chance = percent(results["data"]["chance"])
        return f"Chance level, {chance}, is the accuracy of always predicting the most frequent test class."
    if list(found) == [BALANCED]:
        return (
            "Figures are balanced accuracies, in which every class counts the same, because the largest class makes up "
            f"{percent(results['data']['chance'])} of the test {noun(results)}: always predicting it reaches that "
            f"accuracy, and {percent(found[BALANCED])} of balanced accuracy, which is chance level here."
        )
    listed = ", ".join(f"{percent(chance)} of {measure}" for measure, chance in found.items())
    return f"Chance level is what the best answer reaches that does not look at samples: {listed}."


def _mixture(recipe: RecipeDocument, samples: str) -> str:
    gain, clean, part = recipe["gain"], victims(recipe, "clean")["mean"], victims(recipe, "part")["mean"]
    interval = f" ({points_range(gain['interval'])})" if gain["interval"] else ""
    return (
        f"If an attacker has {100 - 100 * gain['share']:g}% of the {samples} clean ({recipe['title']}), the protected "
        f"ones add {percentage_points(gain['mean'])} points{interval} to the {recipe['measure']} of training on the "
        f"clean ones alone ({percent(part)}); clean ones in their place would add {percentage_points(clean - part)}."
    )


def _senses(results: ProtectionDocument) -> str:
    keep = f"keep the clean {noun(results)} for all work that depends on them."
    if "audibility" in results:
        return (
            "Audibility is measured on signals and spectra. The effect of the change on listeners was not tested: "
            + keep
        )
    return (
        "Visibility is measured in pixels. The effect of the change on human readers and on diagnoses was not tested: "
        + keep
    )


def _recipe_warnings(recipe: RecipeDocument, samples: str) -> list[str]:
    """Warnings of a recipe whose protected set is not clearly worse than a control, or whose best epoch is better."""
    paragraphs: list[str] = []
    where = f"With the recipe “{recipe['title']}”"
    if "repetition" in recipe and "invalid_because" not in recipe:
        paragraphs.append(f"{where}, {_repetition(recipe['repetition'], samples)}")
    if "invalid_because" in recipe:
        return [
            f"INVALID: {recipe['invalid_because']}, so this recipe allows no conclusion and does not count in the "
            "verdict."
        ]
    control = best_noise(recipe)
    against_noise, protected = _lead(recipe, control["set"]), victims(recipe, "protected")["mean"]
    has = "spectrum and strength" if control["set"] == "spectrum" else "budget"
    pair = (
        f"{percent(protected)} compared with {percent(control['mean'])}; the noise has the same {has} and is shared in "
        "the same way"
    )
    if against_noise.mean < SAME:
        paragraphs.append(f"{where}, the protection is no better than random noise ({pair}).")
    elif not _distinguished(recipe, control["set"], against_noise):
        paragraphs.append(
            f"{where}, these seeds do not distinguish the protection from random noise ({pair}); train more seeds."
        )
    elif not _distinguished(recipe, "clean", against_clean := _lead(recipe, "clean")):
        paragraphs.append(
            f"{where}, the protected victims are {100 * against_clean.mean:.1f} points below the clean "
            "control, but these seeds vary too much to rule out chance; train more seeds."
        )
    best = fmean(victim["best"] for victim in victims(recipe, "protected")["seeds"])
    if best - protected > SAME:
        paragraphs.append(
            f"{where}, victims that stop at their best epoch reach {percent(best)} on average instead of "
            f"{percent(protected)}. Finding that epoch requires clean test {samples}, which an attacker may have."
        )
    return paragraphs


def _repetition(repetition: RepetitionDocument, samples: str) -> str:
    first, again = repetition["first"], repetition["again"]
    return (
        f"the clean control did not learn in {first['steps']:,} steps ({percent(first['means']['clean'])}; victims on "
        f"protected {samples} reached {percent(first['means']['protected'])}), so all were trained again. The figures "
        f"are those after {again['steps']:,} steps. An attacker with these {samples} would train for as long, too."
    )


def _lead(recipe: RecipeDocument, control: Kind) -> Summary:
    """The measure on a control minus that on the protected set, over the seeds that both have."""
    first = {victim["seed"]: victim["last"] for victim in victims(recipe, control)["seeds"]}
    second = {victim["seed"]: victim["last"] for victim in victims(recipe, "protected")["seeds"]}
    shared = sorted(first.keys() & second.keys())
    return paired_difference([first[seed] for seed in shared], [second[seed] for seed in shared])


def _distinguished(recipe: RecipeDocument, control: Kind, lead: Summary) -> bool:
    """Whether the lead exceeds chance: over the seeds, or for one seed over the test samples."""
    if lead.interval is not None:
        return lead.interval[0] > 0
    number = recipe["effective"]
    lower = wilson(victims(recipe, control)["mean"] * number, number)[0]
    upper = wilson(victims(recipe, "protected")["mean"] * number, number)[1]
    return lower > upper


def _fewest_seeds(results: ProtectionDocument) -> int:
    return min(len(entry["seeds"]) for recipe in results["recipes"] for entry in recipe["sets"])
