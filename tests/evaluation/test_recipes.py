"""A recipe whose clean control has not learnt is trained once more with more steps, and only then is it invalid."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from documents import mismatches
from toys import ToySource, make_store, toy_bench

from hpcule.evaluation.claims import verdict, warnings
from hpcule.evaluation.evaluate import Victims, evaluate
from hpcule.evaluation.results import ProtectionDocument
from hpcule.evaluation.suites import EvaluateConfig
from hpcule.store.read import StoreReader
from hpcule.store.vault import Vault
from hpcule.victim.config import VictimConfig
from hpcule.victim.recipe import Recipe

VICTIM = VictimConfig(network="convnet", steps=10, batch=30, learning_rate=0.05, precision="fp32", warmup_epochs=0)
HOPELESS = "grayscale+blur-10+bit-depth-1"


@pytest.fixture
def store(tmp_path, alone):
    return make_store(tmp_path / "store", ToySource(120), alone)


def config(*recipes, **changes):
    return EvaluateConfig(
        victim=dataclasses.replace(VICTIM, **changes), recipes=tuple(map(Recipe.parse, recipes)), seeds=(0,)
    )


def test_what_did_not_learn_is_trained_for_longer_and_both_figures_stay(store, tmp_path, alone):
    told, trained = [], []
    bench = toy_bench(store, tmp_path, alone, report=lambda label, done, total: trained.append(label))
    bench = dataclasses.replace(bench, tell=told.append)
    results, _ = evaluate(config("plain"), bench)
    assert mismatches(results, ProtectionDocument) == []
    (recipe,) = results["recipes"]
    assert results["status"] == "done"
    assert {victim["steps"] for entry in recipe["sets"] for victim in entry["seeds"]} == {40}
    first, again = recipe["repetition"]["first"], recipe["repetition"]["again"]
    assert (first["steps"], again["steps"], recipe["settings"]["steps"]) == (10, 40, 40)
    assert again["means"] == {entry["set"]: entry["mean"] for entry in recipe["sets"]}
    assert first["means"].keys() == again["means"].keys()
    assert "chance is 33.3%: it is trained again with 4 times as many steps" in told[0]
    (said,) = [text for text in warnings(results) if "did not learn in 10 steps" in text]
    assert "those after 40 steps" in said
    trained.clear()
    assert evaluate(config("plain"), bench)[0]["recipes"] == results["recipes"]
    assert trained == [], "all is there"


def test_where_test_classes_are_unequal_all_figures_are_balanced(store, tmp_path, alone):
    bench = toy_bench(store, tmp_path, alone)
    kept = (bench.test.labels == 0) | (np.arange(60) < 12)
    bench.test.samples, bench.test.labels = bench.test.samples[kept], bench.test.labels[kept]
    results, _ = evaluate(config(HOPELESS), bench, may_repeat=lambda recipe: False)
    (recipe,) = results["recipes"]
    assert (recipe["measure"], recipe["chance"]) == ("balanced accuracy", pytest.approx(1 / 3))
    assert recipe["effective"] == pytest.approx(9 / (1 / 20 + 1 / 4 + 1 / 4))
    assert results["data"]["chance"] == pytest.approx(20 / 28)
    last = {entry["set"]: entry["seeds"][0] for entry in recipe["sets"]}
    assert last["clean"]["measures"]["accuracy"] != last["clean"]["measures"]["balanced accuracy"]
    for victim in last.values():
        assert victim["last"] == victim["curve"][-1]["test"] == victim["measures"]["balanced accuracy"]
        assert victim["best"] == max(epoch["test"] for epoch in victim["curve"])
    assert results["worst_case"]["protected"] == last["protected"]["last"]
    assert "of balanced accuracy, chance is 33.3%" in verdict(results)


def test_only_the_control_is_repeated_of_what_never_learns(store, tmp_path, alone):
    told, trained = [], []
    bench = toy_bench(store, tmp_path, alone, report=lambda label, done, total: trained.append(label))
    (recipe,) = Victims(config(HOPELESS), dataclasses.replace(bench, tell=told.append)).train()
    assert {label for label in trained if label.endswith("longer")} == {f"{HOPELESS}, clean, seed 0, longer"}
    assert recipe["repetition"]["again"]["means"].keys() == {"clean"}
    assert "with 4 times as many steps it reached" in recipe["invalid_because"]
    assert {victim["steps"] for entry in recipe["sets"] for victim in entry["seeds"]} == {10}
    assert len(told) == 1


def test_a_repetition_can_be_refused(store, tmp_path, alone):
    (recipe,) = Victims(config("plain"), toy_bench(store, tmp_path, alone)).train(may_repeat=lambda recipe: False)
    assert "repetition" not in recipe
    assert recipe["invalid_because"].endswith("; time did not suffice to train it for longer")


def test_a_plan_of_its_own_counts_the_longer_victims(store, tmp_path, alone):
    plans = []
    bench = toy_bench(store, tmp_path, alone)
    Victims(config("plain"), dataclasses.replace(bench, plan=lambda *plan: plans.append(plan))).train()
    assert [victims for victims, _ in plans] == [1, 2]
    assert all(0 < seconds < 600 for _, seconds in plans)


def train_on_ranks(world, store, out):
    return Victims(config("plain", HOPELESS), toy_bench(StoreReader(Vault(store)), out, world)).train()


def test_ranks_repeat_the_same_recipes(pool, store, tmp_path):
    first, second = pool.run(train_on_ranks, store.path, tmp_path)
    assert [recipe["sets"] for recipe in first] == [recipe["sets"] for recipe in second]
    assert ["invalid_because" in recipe for recipe in first] == [False, True]
