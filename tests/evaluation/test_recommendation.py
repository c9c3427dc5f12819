"""What a tournament came to, in words for somebody who does not know the field."""

from __future__ import annotations

import pytest

from hpcule.evaluation.candidates import Candidate
from hpcule.evaluation.recommendation import Standing, advice, choose, recommendation
from hpcule.report.comparison import write_recommendation

CANDIDATES = {"pil-16": Candidate("pil", 16), "pil-8": Candidate("pil", 8), "lsp-16": Candidate("lsp", 16)}
HELD, PART, WEAK = (0.12, 0.1, 0.11), (0.4, 0.41, 0.42), (0.6, 0.61, 0.62)


def store(make, protected, epsilon=16):
    found = make.results([make.plain(protected=protected)])
    found["protection"]["epsilon"] = epsilon
    return found


def ended(make, evaluated, **changes):
    standings = [Standing(CANDIDATES[name], results["recipes"]) for name, results in evaluated.items()]
    settings = {"minutes": 20, "untried": [], "left_out": [], "unreached": [], "refused": {}} | changes
    return recommendation(evaluated, standings, **settings)


@pytest.mark.parametrize(
    ("strong", "weak", "other", "expected"),
    [
        (HELD, PART, PART, "pil-16"),
        (HELD, HELD, PART, "pil-8"),
        (PART, PART, HELD, "lsp-16"),
        (PART, WEAK, WEAK, "pil-16"),
        (WEAK, WEAK, WEAK, None),
    ],
)
def test_a_weaker_strength_is_preferred_where_it_protects_as_well(make, strong, weak, other, expected):
    evaluated = {"pil-16": store(make, strong), "pil-8": store(make, weak, 8), "lsp-16": store(make, other)}
    assert choose(evaluated, CANDIDATES) == expected


def test_what_random_noise_does_as_well_is_no_protection(make):
    results = make.results([make.plain(noise=(0.12, 0.13, 0.12), protected=HELD)])
    assert choose({"pil-16": results}, CANDIDATES) is None


def test_the_advice_names_the_command_and_the_evidence(make):
    evaluated = {"pil-8": store(make, HELD, 8)}
    said = advice(ended(make, evaluated), evaluated, "my images")
    assert said.answer.startswith("Recommended: protect these images with PIL")
    assert "by more than 8 of 255 levels" in said.answer
    assert "--data 'my images' --set method.epsilon=8 --out STORE" in said.steps[0]
    # 0.11 of 0.715 where 0.1 is chance.
    assert "still learns 1.6%" in said.evidence
    assert "an accuracy of 11.0% on new images, instead of 71.5%" in said.evidence
    assert "where guessing gives 10.0%" in said.evidence
    assert said.limits == []


def test_what_some_attackers_have_not_met_is_not_recommended_yet(make):
    evaluated = {"pil-16": store(make, HELD)}
    said = advice(ended(make, evaluated, untried=["D-VAE"]), evaluated, "d")
    assert said.answer.startswith("Not decided yet, the best so far: PIL")
    assert "Only 1 attacker met it" in said.answer
    assert "larger --budget" in said.steps[0]


def test_the_page_begins_with_what_to_do(make, tmp_path):
    evaluated = {"pil-16": store(make, HELD)}
    results = ended(make, evaluated)
    write_recommendation(results, tmp_path / "report.html", advice(results, evaluated, "d"))
    page = (tmp_path / "report.html").read_text()
    places = [
        page.index(part) for part in ("Recommended: protect", "What to do", "by store and recipe", "What the words")
    ]
    assert places == sorted(places)


def test_where_nothing_protects_it_says_so_plainly(make):
    evaluated = {"pil-16": store(make, WEAK)}
    results = ended(make, evaluated)
    assert results["recommended"] is None
    said = advice(results, evaluated, "d")
    assert said.answer.startswith("Nothing that was tried protects this collection: attackers")
    assert "Do not publish" in said.steps[0]


def test_controls_that_did_not_learn_allow_no_conclusion(make):
    recipe = make.plain() | {"invalid_because": "the clean control reached 0.12"}
    invalid = make.results([recipe], status="invalid", invalid_because="the clean control reached 0.12")
    evaluated = {"pil-16": invalid}
    assert advice(ended(make, evaluated), evaluated, "d").answer.startswith("No conclusion")
    assert Standing(CANDIDATES["pil-16"], invalid["recipes"]).rank == 1


def test_what_was_dropped_or_not_tried_is_named(make):
    evaluated = {"pil-16": store(make, HELD)}
    standings = [
        Standing(CANDIDATES["pil-16"], evaluated["pil-16"]["recipes"]),
        Standing(CANDIDATES["lsp-16"], [make.plain(protected=WEAK)]),
    ]
    results = recommendation(
        evaluated,
        standings,
        minutes=20,
        untried=["JPEG at quality 10"],
        left_out=[],
        unreached=["em-16"],
        refused={"poscuda": "it is for recordings"},
    )
    (dropped,) = results["dropped"]
    assert (dropped["name"], dropped["attackers"], dropped["worst"]) == ("lsp-16", 1, "no augmentation")
    said = " ".join(advice(results, evaluated, "d").limits)
    for part in (
        "Attackers not tried in the time, so not covered: JPEG at quality 10.",
        "Methods not reached within 20 minutes: em-16.",
        "poscuda cannot take these samples: it is for recordings.",
    ):
        assert part in said
