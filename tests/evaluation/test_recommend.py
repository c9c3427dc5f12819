"""A tournament keeps its time, drops the worse half, goes on where it was, and says who could not take part."""

from __future__ import annotations

import dataclasses
import math
import shutil
import time

import pytest
from documents import mismatches
from toys import ToySource

from hpcule.config.errors import DataError, StoppedError, UsageError
from hpcule.config.tree import build_config
from hpcule.craft import measured
from hpcule.craft.table import METHODS
from hpcule.evaluation import recommend as module
from hpcule.evaluation.bench import Setup
from hpcule.evaluation.candidates import Candidate, RecommendConfig, candidates
from hpcule.evaluation.recommend import Deadline, recommend
from hpcule.evaluation.recommendation import RecommendationDocument
from hpcule.victim.config import VictimConfig
from hpcule.victim.recipe import Recipe

VICTIM = VictimConfig(network="convnet", epochs=4, batch=30, learning_rate=0.05, precision="fp32")
CONFIG = RecommendConfig(
    methods=("classwise", "pil"), levels=(16,), preset="smoke", samples=120, victim=VICTIM, recipes=(Recipe(),)
)


def hold(world, out, minutes=10.0, setup=None, **changes):
    """The results, and what was done."""
    told = []
    setup = setup or Setup(
        source=ToySource(150),
        test=ToySource(60, seed=1),
        out=out,
        world=world,
        report=lambda label, done, total: told.append(label),
    )
    results, *_ = recommend(dataclasses.replace(CONFIG, **changes), minutes, "toys", setup)
    return results, list(dict.fromkeys(told))


def test_candidates_are_all_methods_for_images_that_need_no_checkpoint():
    fit = {name for name, method in METHODS.items() if method.facts.data == "images"}
    found = candidates()
    assert len(found) == len(set(found))
    assert set(found) == {name for name in fit if not METHODS[name].facts.needs_checkpoint}


def record(method, recipe, protected, seconds=0.0):
    return {
        "method": method,
        "record": "docs/studies/x.csv",
        "data": "x",
        "variant": method,
        "recipe": recipe,
        "protected": protected,
        "clean": 0.8,
        "chance": 0.1,
        "craft_seconds": seconds,
    }


def test_candidates_that_records_expect_most_of_come_first_and_then_cheap_ones(monkeypatch):
    rows = [
        record("ops", "grayscale+linear-probe", 0.81),
        record("pil", "grayscale", 0.1),
        record("pil", "jpeg+fine-tune@3", 0.6),
        record("pil", "linear-probe", 0.4),
        record("texture", "linear-probe", 0.5),
        record("em", "plain", 0.1, seconds=200),
        record("rem", "plain", 0.2, seconds=30),
    ]
    monkeypatch.setattr(measured, "measured_rows", lambda: rows)
    order = candidates()
    assert order[:4] == ("texture", "pil", "rem", "em")
    assert order[-1] == "ops", "it helps an attacker"


def test_methods_take_part_at_their_largest_budget_in_levels_of_their_own_grid():
    config = RecommendConfig(methods=("pil", "cuda"), levels=(4, 16, 8))
    strongest = Candidate.strongest(config)
    assert [one.name for one in strongest] == ["pil-16", "cuda"]
    assert [one.name for one in strongest[0].weaker(config)] == ["pil-8", "pil-4"]
    assert strongest[1].weaker(config) == []
    deep = ToySource(10)
    deep.levels = 65535
    assert strongest[0].settings(deep) == ["method.epsilon=4112"]
    assert strongest[1].settings(deep) == []


def test_every_method_is_crafted_and_measured_on_a_subset(alone, tmp_path):
    results, told = hold(alone, tmp_path)
    assert {row["name"] for row in results["stores"]} == {"classwise-16", "pil-16"}
    assert {row["epsilon"] for row in results["stores"]} == {16}
    assert mismatches(results, RecommendationDocument) == []
    assert results["data"]["train"] == 120
    assert (results["unreached"], results["untried"], results["dropped"]) == ([], [], [])
    assert any(label.startswith("pil-16: ") for label in told)
    assert hold(alone, tmp_path)[1] == ["estimate"], "all is there"


def test_each_round_drops_the_worse_half_and_the_best_one_is_tried_weaker(alone, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ATTACKERS", (1,))
    recipes = tuple(map(Recipe.parse, ("grayscale", "plain")))
    plans = []
    setup = Setup(
        source=ToySource(150),
        test=ToySource(60, seed=1),
        out=tmp_path,
        world=alone,
        report=lambda label, done, total: None,
        plan=lambda victims, seconds: plans.append((victims, seconds)),
    )
    results, _ = hold(alone, tmp_path, setup=setup, recipes=recipes, levels=(16, 2))
    (dropped,) = results["dropped"]
    assert dropped["attackers"] == 1
    best = next(name for name in ("classwise", "pil") if not dropped["name"].startswith(name))
    assert {row["name"] for row in results["stores"]} == {f"{best}-16", f"{best}-2"}
    for row in results["stores"]:
        assert set(row["recipes"]) == {"grayscale", "plain"}
    # Two controls of each attacker; the first meets both methods, the second one of them.
    ((victims, seconds),) = plans
    assert victims == 2 + 2 + 2 + 1
    assert 0 < seconds < 600


def test_attackers_that_time_did_not_suffice_to_estimate_come_last(alone, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ATTACKERS", (1,))
    monkeypatch.setattr(module, "ESTIMATING", 0.0)
    results, _ = hold(alone, tmp_path, recipes=tuple(map(Recipe.parse, ("jpeg-10", "plain", "grayscale"))))
    (dropped,) = results["dropped"]
    assert dropped["worst"] == "JPEG at quality 10"


def test_a_craft_that_takes_too_much_of_a_round_does_not_keep_out_the_others(alone, tmp_path, monkeypatch):
    hold(alone, tmp_path, methods=("classwise",))
    monkeypatch.setattr(module, "LONGEST", 0.0)
    # What is crafted already takes no time.
    results, _ = hold(alone, tmp_path, methods=("pil", "classwise"))
    assert [row["name"] for row in results["stores"]] == ["classwise-16"]
    assert results["unreached"] == ["pil-16"]


def test_too_little_time_for_anything_says_so_and_goes_on_later(alone, tmp_path):
    with pytest.raises(UsageError, match=r"--budget 1e-09: no candidate was measured"):
        hold(alone, tmp_path, minutes=1e-9)
    assert len(hold(alone, tmp_path)[0]["stores"]) == 2


def test_what_is_left_of_the_time_is_for_the_first_one_where_half_of_it_suffices_for_none(alone, tmp_path, monkeypatch):
    recipes = tuple(map(Recipe.parse, ("plain", "grayscale")))
    monkeypatch.setattr(module, "ATTACKERS", (1,))
    hold(alone, tmp_path, recipes=recipes)
    shutil.rmtree(tmp_path / "cells")  # what is crafted already takes no time

    class Slow(Deadline):
        """Over unless there are eight of the ten minutes left."""

        def __bool__(self):
            return self.end - time.monotonic() < 480

    monkeypatch.setattr(module, "Deadline", Slow)
    results, _ = hold(alone, tmp_path, recipes=recipes)
    assert [row["name"] for row in results["stores"]] == ["classwise-16"]
    assert (results["unreached"], results["untried"]) == (["pil-16"], [])


class OnTime(Deadline):
    """Set from the moment on when it has been asked so many times."""

    asked, most = 0, math.inf

    def __bool__(self):
        OnTime.asked += 1
        return OnTime.asked > OnTime.most


@pytest.fixture
def clock(monkeypatch):
    """Sets after how many questions the time is over."""
    monkeypatch.setattr(module, "Deadline", OnTime)

    def set_to(most):
        OnTime.asked, OnTime.most = 0, most

    return set_to


def test_crafts_and_victims_are_stopped_by_the_clock_and_go_on_later(alone, tmp_path, clock):
    clock(math.inf)
    expected = hold(alone, tmp_path / "undisturbed")[0]
    every = OnTime.asked
    stopped = 0
    for most in range(1, every, every // 7):
        clock(most)
        try:
            results = hold(alone, tmp_path / "stopped")[0]
        except UsageError:
            stopped += 1
            continue
        if results["unreached"]:
            assert results["unreached"] == ["pil-16"]
            assert [row["name"] for row in results["stores"]] == ["classwise-16"]
            stopped += 1
    assert stopped > 2
    clock(math.inf)
    again = hold(alone, tmp_path / "stopped")[0]
    assert [row["recipes"] for row in again["stores"]] == [row["recipes"] for row in expected["stores"]]


def test_a_signal_is_no_end_of_the_time(alone, tmp_path, monkeypatch):
    class Asked(Deadline):
        def __bool__(self):
            if self.end < float("inf"):
                self.name = "SIGTERM"
            return super().__bool__()

    monkeypatch.setattr(module, "Deadline", Asked)
    with pytest.raises(StoppedError, match="run the same command again"):
        hold(alone, tmp_path)


def test_methods_that_cannot_take_the_samples_are_named(alone, tmp_path):
    results, _ = hold(alone, tmp_path, methods=("poscuda", "classwise"))
    assert [row["name"] for row in results["stores"]] == ["classwise-16"]
    assert list(results["refused"]) == ["poscuda"]
    with pytest.raises(DataError, match="no method can take these samples"):
        hold(alone, tmp_path, methods=("poscuda",))


def test_without_recipes_the_attackers_are_those_of_the_clinic():
    evaluation = RecommendConfig().evaluation(ToySource(20))
    assert "crop-flip" in [recipe.name for recipe in evaluation.recipes]
    assert len(evaluation.recipes) > 5
    assert evaluation.victim == RecommendConfig().victim


def hold_until(world, out, minutes):
    try:
        return hold(world, out, minutes)[0]
    except UsageError as error:
        return str(error)


def test_ranks_agree_on_the_time(pool, tmp_path):
    first, second = pool.run(hold_until, tmp_path, 1e-9)
    assert first == second
    assert "no candidate was measured" in first
    first, second = pool.run(hold_until, tmp_path, 10.0)
    assert first == second
    assert len(first["stores"]) == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"methods": ["pill"]}, "did you mean 'pil'"),
        ({"methods": []}, "at least one"),
        ({"methods": ["pil", "pil"]}, "none twice"),
        ({"levels": []}, "at least one"),
        ({"levels": [0.5]}, "each of 1 to 127"),
        ({"recipes": ["mix-0.5"]}, "at least one without clean samples"),
    ],
)
def test_what_makes_no_tournament_is_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        build_config(RecommendConfig, settings)
