import pytest
from documents import mismatches

from hpcule.evaluation.claims import claims, grade, verdict, warnings
from hpcule.evaluation.results import ProtectionDocument


def test_the_results_of_these_tests_are_a_document(results, make):
    assert mismatches(results, ProtectionDocument) == []
    assert mismatches(make.results([make.plain(), make.mixed()]), ProtectionDocument) == []


@pytest.mark.parametrize(
    ("protected", "expected"),
    [
        ((0.12, 0.10, 0.11), "held"),
        ((0.4, 0.41, 0.42), "part"),
        ((0.6, 0.61, 0.62), "weak"),
        ((0.71, 0.72, 0.71), "none"),
    ],
)
def test_grades_follow_what_is_left(make, protected, expected):
    results = make.results([make.plain(protected=protected)])
    assert grade(results) == expected


def test_the_worst_recipe_counts(make):
    results = make.results([make.plain(protected=(0.1, 0.1, 0.1)), make.cropped(protected=(0.74, 0.75, 0.745))])
    assert grade(results) == "none"
    assert "(crop and flip)" in verdict(results)
    assert "an accuracy of 74.5% on clean test images" in verdict(results)


def test_a_control_at_chance_proves_nothing_even_when_called_done(make):
    results = make.results([make.plain(clean=(0.1, 0.1, 0.1), protected=(0.05, 0.05, 0.05))])
    assert grade(results) == "none"


def test_verdict_names_both_controls_and_chance(results):
    text = verdict(results)
    for number in ("34.7%", "74.5%", "73.5%", "10.0%"):
        assert number in text
    assert text.count(". ") == 0
    assert text.endswith(".")


@pytest.mark.parametrize(
    ("protected", "area", "said"),
    [
        # Of the clean control's 0.43 beyond chance, 9 % is left, as little as of its accuracy; then 70 and 93 %.
        ((0.12, 0.10, 0.11), 0.54, False),
        ((0.12, 0.10, 0.11), 0.80, True),
        ((0.4, 0.41, 0.42), 0.54, False),
        ((0.4, 0.41, 0.42), 0.90, True),
    ],
)
def test_scores_that_tell_more_than_answers_are_in_the_verdict(make, protected, area, said):
    recipe = make.with_areas(make.plain(protected=protected), clean=0.93, noise=0.92, protected=area)
    text = verdict(make.results([recipe]))
    assert ("their scores still rank the classes" in text) is said
    assert (f"is {area:.2f}, compared with 0.93" in text) is said


def test_a_recipe_without_a_control_does_not_rank_either(make):
    good = make.with_areas(make.plain(protected=(0.1, 0.1, 0.1)), clean=0.93, noise=0.92, protected=0.5)
    bad = make.with_areas(make.cropped(), clean=0.6, noise=0.6, protected=0.9)
    results = make.results([good, bad | {"invalid_because": "it did not learn"}])
    results["worst_case"] = {"recipe": "plain", "protected": 0.1}
    assert "still rank" not in verdict(results)


def test_invalid_is_loud_and_makes_no_claim(make):
    results = make.results(
        [make.plain()], status="invalid", invalid_because="the clean control reached 0.12, chance is 0.10"
    )
    assert grade(results) == "invalid"
    assert verdict(results).startswith("INVALID: the clean control reached 0.12, chance is 0.10")
    assert "held" not in verdict(results)
    assert warnings(results)[0].startswith("INVALID")
    assert claims(results)[0].startswith("INVALID")


def test_a_sound_run_needs_no_warning(make):
    assert warnings(make.results([make.plain(protected=(0.16, 0.17, 0.165))])) == []


def test_no_better_than_noise_is_said_plainly(make):
    results = make.results([make.plain(noise=(0.5, 0.49, 0.5), protected=(0.49, 0.5, 0.49))])
    assert "random noise protects equally well" in verdict(results)
    assert any("no better than random noise" in paragraph for paragraph in warnings(results))


def test_of_two_random_noises_the_better_one_is_compared(make):
    recipe = make.plain(noise=(0.7, 0.71, 0.7), protected=(0.49, 0.5, 0.49))
    noise = next(entry for entry in recipe["sets"] if entry["set"] == "noise")
    assert not any("no better than random noise" in paragraph for paragraph in warnings(make.results([recipe])))
    seeds = [victim | {"last": 0.5} for victim in noise["seeds"]]
    recipe["sets"].append(noise | {"set": "spectrum", "seeds": seeds, "mean": 0.5})
    results = make.results([recipe])
    assert "random noise of the same spectrum, so random noise protects equally well" in verdict(results)
    assert any("50.0%; the noise has the same spectrum and strength" in paragraph for paragraph in warnings(results))


def test_worse_than_noise_is_no_better_than_noise(make):
    results = make.results([make.plain(noise=(0.3, 0.3, 0.31), protected=(0.5, 0.5, 0.51))])
    assert any("no better than random noise" in paragraph for paragraph in warnings(results))


def test_seeds_that_scatter_tell_nothing_apart(make):
    results = make.results([make.plain(noise=(0.7, 0.5, 0.6), protected=(0.4, 0.65, 0.45))])
    assert any("do not distinguish the protection from random noise" in paragraph for paragraph in warnings(results))


def test_seeds_are_compared_in_pairs(make):
    # Seeds scatter by forty points, but each one loses the same five.
    noise = (0.7, 0.5, 0.3)
    results = make.results([make.plain(clean=noise, noise=noise, protected=(0.65, 0.45, 0.25))])
    assert not any("do not distinguish" in paragraph for paragraph in warnings(results))


def test_one_seed_is_judged_by_the_number_of_test_images(make):
    recipe = make.plain(clean=(0.8,), noise=(0.75,), protected=(0.7,))
    many, few = make.results([recipe]), make.results([recipe])
    few["recipes"] = [{**recipe, "effective": 156}]
    assert not any("do not distinguish" in paragraph for paragraph in warnings(many))
    assert any("do not distinguish" in paragraph for paragraph in warnings(few))
    assert any("Only one seed" in paragraph for paragraph in warnings(many))


def test_stopping_early_is_reported(make):
    recipe = make.plain()
    for victim in recipe["sets"][2]["seeds"]:
        victim["best"] = 0.48
    assert any("best epoch reach 48.0%" in paragraph for paragraph in warnings(make.results([recipe])))


def test_reduced_settings_are_named(make):
    results = make.results([make.plain()], reduced=True)
    results["protection"]["preset"] = "smoke"
    assert "(reduced settings)" in verdict(results)
    assert "preset smoke" in warnings(results)[0]


def test_attackers_that_were_left_out_are_named(make):
    results = {**make.results([make.plain()]), "left_out": ["linear-probe@resnet18: pip install it"]}
    assert mismatches(results, ProtectionDocument) == []
    assert "Not everything was tried: linear-probe@resnet18: pip install it." in warnings(results)


def test_claims_draw_the_limits(results):
    text = " ".join(claims(results))
    for limit in (
        "trained on the published copy of cifar10",
        "no augmentation, crop and flip",
        "10,000 of the 50,000 protected images",
        "has clean copies of the images, or the perturbation",
        "were not tried and are not covered",
        "averaging removes most of it",
        "The effect of the change on human readers",
    ):
        assert limit in text


@pytest.mark.parametrize(("unit", "count"), [("sample", 0), ("class", 1), ("cluster", 1)])
def test_a_shared_perturbation_is_shown_by_one_original(make, unit, count):
    results = make.results([make.plain()])
    results["protection"]["unit"] = unit
    shared = [text for text in claims(results) if f"All images of a {unit} have the same perturbation" in text]
    assert len(shared) == count


def test_uncertainty_of_the_test_set_is_half_the_wilson_interval(make):
    results = make.results([make.plain(protected=(0.5,), clean=(0.9,), noise=(0.9,))])
    results["recipes"][0]["effective"] = 100
    # Known value: 50 of 100 has the interval 40.4 % to 59.6 %.
    assert any("by about ±9.6 points" in paragraph for paragraph in claims(results))


def test_the_measure_is_named_where_classes_are_unequal(make):
    balanced = {"measure": "balanced accuracy", "chance": 0.1, "effective": 500.0}
    results = make.results([make.plain() | balanced, make.mixed() | balanced])
    results["data"]["chance"] = 0.4
    text = " ".join([verdict(results), *claims(results)])
    assert "reach a balanced accuracy of 17.7%" in text
    assert ") to the balanced accuracy of training" in text
    assert "always predicting it reaches that accuracy, and 10.0% of balanced accuracy, which is chance level" in text
    assert "n accuracy" not in text


def test_a_mixture_tells_what_the_protected_part_adds(make):
    results = make.results([make.plain(), make.mixed()])
    (paragraph,) = [text for text in claims(results) if "training on the clean ones alone" in text]
    assert "an attacker has 50% of the images clean (50% protected, the rest clean)" in paragraph
    assert "add +3.0 points (" in paragraph
    assert "clean ones alone (59.0%); clean ones in their place would add +12.5." in paragraph
    assert "(no augmentation)" not in verdict(results)
    assert "62.0%" not in verdict(results)


def test_a_recipe_without_a_control_is_loud_and_does_not_count(make):
    invalid = make.cropped(clean=(0.1, 0.11, 0.1)) | {"invalid_because": "the clean control of recipe crop-flip is bad"}
    paragraphs = warnings(make.results([make.plain(), invalid]))
    assert any(text.startswith("INVALID: the clean control of recipe crop-flip is bad, so") for text in paragraphs)
