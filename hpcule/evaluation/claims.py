"""What the numbers say, in words, and what they do not say."""

from __future__ import annotations

from statistics import fmean
from typing import Literal, get_args

from hpcule.evaluation.ranked import best_ranks
from hpcule.evaluation.results import (
    Recipe,
    Results,
    SetName,
    noun,
    percent,
    points,
    points_range,
    victims,
    whole_recipes,
    worst_recipe,
)
from hpcule.measure.accuracy import Summary, paired_difference, wilson

Grade = Literal["invalid", "held", "part", "weak", "none"]
GRADES: tuple[Grade, ...] = get_args(Grade)
"""From the best of what can be said to the worst, after nothing."""

HELD, PART = 0.2, 0.7
"""Shares of what the clean control learns beyond chance: up to the first is left where a protection held, up to the
second where it held in part. A convention of this report; the numbers stand beside every use of it."""

SAME = 0.02
"""Accuracies that differ by less than two points are called the same, with however many seeds."""

OPENING = {
    "held": "The protection held",
    "part": "The protection held in part",
    "weak": "The protection is weak",
    "none": "The protection did not hold",
}


def grade(results: Results) -> Grade:
    """How much protection is left in the worst case."""
    if results["status"] == "invalid":
        return "invalid"
    recipe, chance = worst_recipe(results), results["data"]["chance"]
    clean, protected = victims(recipe, "clean")["mean"], victims(recipe, "protected")["mean"]
    if min(clean - protected, clean - chance) < SAME:
        return "none"
    return _graded((protected - chance) / (clean - chance))


def _graded(left: float) -> Grade:
    return "held" if left <= HELD else "part" if left <= PART else "weak"


def verdict(results: Results) -> str:
    """Did the protection hold, in the worst case, beside its controls; and do victims know more than they name."""
    found = grade(results)
    if found == "invalid":
        return f"INVALID: {results['invalid_because']}, so nothing can be said about the protection."
    recipe, samples = worst_recipe(results), noun(results)
    clean, noise, protected = (victims(recipe, name)["mean"] for name in ("clean", "noise", "protected"))
    as_good = ", so random noise protects as well" if found != "none" and noise - protected < SAME else ""
    who = "victims"
    if len(whole_recipes(results)) > 1:
        who = f"the most successful victims ({recipe['title']})"
    return (
        f"{OPENING[found]}{' (reduced settings)' if results['reduced'] else ''}: trained on the protected copy of "
        f"{results['data']['name']}, {who} recognise {percent(protected)} of clean test {samples}, against "
        f"{percent(clean)} after training on clean {samples} and {percent(noise)} on {samples} with random "
        f"noise{as_good}; chance is {percent(results['data']['chance'])}.{_known_besides(results)}"
    )


def _known_besides(results: Results) -> str:
    """A sentence where scores of protected victims tell more of the classes than the grade of their answers says."""
    ranks = best_ranks(results)
    if ranks is None or GRADES.index(_graded(ranks.left)) <= GRADES.index(grade(results)):
        return ""
    return (
        f" But they know more than they name: their scores rank clean test {noun(results)} with an area under the "
        f"curve of {ranks.protected:.2f}, against {ranks.clean:.2f} after clean ones (0.5 is chance), and another "
        "threshold makes accuracy of it."
    )


def warnings(results: Results) -> list[str]:
    """What must be read before the numbers, a paragraph each; empty where nothing stands in their way."""
    paragraphs, samples = [], noun(results)
    if results["status"] == "invalid":
        paragraphs.append(
            f"INVALID: {results['invalid_because']}. A victim that does not learn from clean {samples} cannot show "
            f"that protected {samples} are the reason it does not learn. Read no protection into these numbers; "
            f"train longer, or on more {samples}, and evaluate again."
        )
    if results["reduced"]:
        paragraphs.append(
            f"The settings are reduced (preset {results['protection']['preset']}): they show that everything works, in "
            "little time. The figures are not comparable with published ones, nor with those of the full settings."
        )
    if results["status"] != "invalid":
        for recipe in whole_recipes(results):
            paragraphs += _recipe_warnings(recipe, results["data"]["test"], samples)
    if _fewest_seeds(results) == 1:
        paragraphs.append(
            "Only one seed was trained, so there is no interval: another seed may give a figure some points away."
        )
    return paragraphs


def claims(results: Results) -> list[str]:
    """Paragraphs on what the figures do and do not claim; the warnings come first."""
    data, protection, samples = results["data"], results["protection"], noun(results)
    low, high = wilson(round(results["worst_case"]["protected"] * data["test"]), data["test"])
    titles = ", ".join(recipe["title"] for recipe in results["recipes"])
    seen = "all" if data["train"] == protection["n"] else f"{data['train']:,} of the"
    scope = (
        f"The figures hold for victims trained from scratch on the published copy of {data['name']} with the recipes "
        f"shown ({titles}), on {seen} {protection['n']:,} protected {samples}, and tested on "
        f"{data['test']:,} clean ones. A longer training, another network, a network that has already been trained "
        "elsewhere, or other data may learn more."
    )
    holders = (
        f"They do not hold for somebody who has clean copies of the {samples}, or the perturbation: whoever has the "
        f"perturbation can take it off. Where protected {samples} are mixed with clean ones, the clean ones teach as "
        "ever."
    )
    holders = " ".join([holders, *(_mixture(recipe, samples) for recipe in results["recipes"] if "gain" in recipe)])
    countermeasures = (
        "A countermeasure that is not among the recipes was not tried and is not covered. Protections of this kind "
        "have been weakened or undone by recompression, by strong augmentation, by adversarial training and by "
        "purification with generative models."
    )
    if "weaknesses" in protection["facts"]:
        countermeasures += f" Known weakness of this method: {protection['facts']['weaknesses']}."
    counting = (
        f"Chance, {percent(data['chance'])}, is what naming the commonest test class every time would score. Intervals "
        f"are 95% Student-t intervals over seeds: they cover the luck of training, not the choice of test {samples}. "
        f"With {data['test']:,} test {samples} that choice alone leaves one victim's figure uncertain by about "
        f"{100 * (high - low) / 2:.1f} points either way."
    )
    wording = (
        f"In the verdict, “held” means that at most {HELD:.0%} of what the clean control learns beyond chance is left "
        f"to the most successful victims, “in part” at most {PART:.0%}, “did not hold” that they stay within "
        f"{100 * SAME:.0f} points of their clean control. Test accuracy is that of the last epoch."
    )
    return [*warnings(results), scope, holders, countermeasures, counting, wording, _senses(results)]


def _mixture(recipe: Recipe, samples: str) -> str:
    gain, clean, part = recipe["gain"], victims(recipe, "clean")["mean"], victims(recipe, "part")["mean"]
    interval = f" ({points_range(gain['interval'])})" if gain["interval"] else ""
    return (
        f"Where a thief has {100 - 100 * gain['share']:g}% of the {samples} clean ({recipe['title']}), the protected "
        f"ones add {points(gain['mean'])} points{interval} to what the clean ones teach alone ({percent(part)}); clean "
        f"ones in their place would add {points(clean - part)}."
    )


def _senses(results: Results) -> str:
    keep = f"keep the clean {noun(results)} for all work that depends on them."
    if "audibility" in results:
        return (
            "Audibility is measured on signals and spectra. Whether the change disturbs a listener was not tested: "
            + keep
        )
    return (
        "Visibility is measured in pixels. Whether the change disturbs a human reader, or a diagnosis, was not tested: "
        + keep
    )


def _recipe_warnings(recipe: Recipe, test: int, samples: str) -> list[str]:
    """Where the protected set is not clearly worse than a control, or a victim does well to stop early."""
    paragraphs: list[str] = []
    where = f"With the recipe “{recipe['title']}”"
    if "invalid_because" in recipe:
        return [f"INVALID: {recipe['invalid_because']}, so this recipe shows nothing; it does not count above."]
    against_noise = _lead(recipe, "noise")
    noise, protected = victims(recipe, "noise")["mean"], victims(recipe, "protected")["mean"]
    pair = f"{percent(protected)} against {percent(noise)}; the noise has the same budget and is shared in the same way"
    if against_noise.mean < SAME:
        paragraphs.append(f"{where}, the protection is no better than random noise ({pair}).")
    elif not _told_apart(recipe, "noise", against_noise, test):
        paragraphs.append(
            f"{where}, these seeds do not tell the protection from random noise ({pair}); run more of them."
        )
    elif not _told_apart(recipe, "clean", against_clean := _lead(recipe, "clean"), test):
        paragraphs.append(
            f"{where}, the protected victims are {100 * against_clean.mean:.1f} points below the clean "
            "control, but these seeds differ too much among themselves to rule out luck; run more of them."
        )
    best = fmean(victim["best"] for victim in victims(recipe, "protected")["seeds"])
    if best - protected > SAME:
        paragraphs.append(
            f"{where}, victims that stop at their best epoch reach {percent(best)} on average instead of "
            f"{percent(protected)}. To find that epoch takes clean test {samples}, which somebody may have."
        )
    return paragraphs


def _lead(recipe: Recipe, control: SetName) -> Summary:
    """Accuracy of a control minus that of the protected set, over the seeds that both have."""
    first = {victim["seed"]: victim["last"] for victim in victims(recipe, control)["seeds"]}
    second = {victim["seed"]: victim["last"] for victim in victims(recipe, "protected")["seeds"]}
    shared = sorted(first.keys() & second.keys())
    return paired_difference([first[seed] for seed in shared], [second[seed] for seed in shared])


def _told_apart(recipe: Recipe, control: SetName, lead: Summary, test: int) -> bool:
    """Whether the lead is beyond luck: over the seeds, or for one seed over the test images."""
    if lead.interval is not None:
        return lead.interval[0] > 0
    lower = wilson(round(victims(recipe, control)["mean"] * test), test)[0]
    upper = wilson(round(victims(recipe, "protected")["mean"] * test), test)[1]
    return lower > upper


def _fewest_seeds(results: Results) -> int:
    return min(len(entry["seeds"]) for recipe in results["recipes"] for entry in recipe["sets"])
