"""What a tournament came to, in words for somebody who does not know the field."""

from __future__ import annotations

import pytest

from hpcule.evaluation.candidates import Candidate
from hpcule.evaluation.recommendation import Standing, advice, choose, recommendation

CANDIDATES = {"pil-16": Candidate("pil", 16), "pil-8": Candidate("pil", 8), "lsp-16": Candidate("lsp", 16)}
HELD, PART, WEAK = (0.12, 0.1, 0.11), (0.4, 0.41, 0.42), (0.6, 0.61, 0.62)


def store(make, protected, epsilon=16):
    found = make.results([make.plain(protected=protected)])
    found["protection"]["epsilon"] = epsilon
    return found


def ended(make, evaluated, **changes):
    standings = [Standing(CANDIDATES[name], results["recipes"]) for name, results in evaluated.items()]
    settings = {"minutes": 20, "untried": [], "unreached": [], "refused": {}} | changes
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
    (said,) = advice(ended(make, evaluated), evaluated, "my-images")
    assert said.startswith("Recommended: ")
    assert "--data my-images --set method.epsilon=8 --out STORE" in said
    # 0.11 of 0.715 where 0.1 is chance.
    assert "still learns 1.6%" in said
    assert "an accuracy of 11.0% instead of 71.5%, where guessing gives 10.0%; from images with random noise" in said


def test_where_nothing_protects_it_says_so_plainly(make):
    evaluated = {"pil-16": store(make, WEAK)}
    results = ended(make, evaluated)
    assert results["recommended"] is None
    assert advice(results, evaluated, "d")[0].startswith("Nothing that was tried protects this collection: attackers")


def test_controls_that_did_not_learn_allow_no_conclusion(make):
    recipe = make.plain() | {"invalid_because": "the clean control reached 0.12"}
    invalid = make.results([recipe], status="invalid", invalid_because="the clean control reached 0.12")
    evaluated = {"pil-16": invalid}
    assert advice(ended(make, evaluated), evaluated, "d")[0].startswith("No conclusion")
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
        unreached=["em-16"],
        refused={"poscuda": "it is for recordings"},
    )
    (dropped,) = results["dropped"]
    assert (dropped["name"], dropped["attackers"], dropped["worst"]) == ("lsp-16", 1, "no augmentation")
    said = " ".join(advice(results, evaluated, "d"))
    for part in (
        "Not tried, so not covered: JPEG at quality 10.",
        "lsp-16 (61.0%, no augmentation, 1 attacker)",
        "Not reached within 20 minutes: em-16.",
        "poscuda cannot take these samples: it is for recordings.",
    ):
        assert part in said
