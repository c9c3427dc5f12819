"""What an evaluation will take is counted from what short trainings took."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from toys import ToySource, make_store, toy_bench

from hpcule.evaluation import cost
from hpcule.evaluation.bench import Setup
from hpcule.evaluation.comparison import compare_stores
from hpcule.evaluation.cost import FORWARD, Outlook, extent, victim_seconds
from hpcule.evaluation.evaluate import evaluate
from hpcule.evaluation.suites import EvaluateConfig
from hpcule.victim.config import VictimConfig
from hpcule.victim.countermeasures.table import Countermeasures
from hpcule.victim.recipe import Recipe
from hpcule.victim.training_data import TrainingData

VICTIM = VictimConfig(network="convnet", epochs=2, batch=30, learning_rate=0.05, precision="fp32")


@pytest.fixture
def store(tmp_path, alone):
    return make_store(tmp_path / "store", ToySource(120), alone)


def test_the_work_of_a_victim_is_in_samples_that_it_trains_on():
    assert extent(VICTIM, 120, 60) == pytest.approx(2 * 120 + FORWARD * 2 * 60)
    probe = VictimConfig(network="resnet18", countermeasures=Countermeasures.parse("linear-probe"))
    assert extent(probe, 120, 60) == pytest.approx(FORWARD * 180)


def test_each_recipe_counts_with_its_own_speed_and_length(alone, monkeypatch):
    data = TrainingData(ToySource(120), np.arange(120, dtype=np.int64), 2**20)
    speed = {"plain": 2.0, "mixup": 5.0}
    monkeypatch.setattr(cost, "_seconds_a_sample", lambda victim, *others: speed[str(victim.countermeasures)])
    plain, mixed = map(Recipe.parse, speed)
    each = victim_seconds(VICTIM, [plain, mixed], data, ToySource(60, seed=1), alone)
    assert each[mixed] == pytest.approx(5 * extent(VICTIM, 120, 60))
    assert Outlook(each, [plain, mixed, mixed]).seconds_left() == pytest.approx((2 + 2 * 5) * extent(VICTIM, 120, 60))


PLAIN, CROPPED, MIXED, FITTED = map(Recipe.parse, ["plain", "crop-flip", "mixup", "dvae"])


def test_what_is_left_is_judged_by_what_is_done():
    expected = {PLAIN: 10.0, CROPPED: 20.0, MIXED: 30.0, FITTED: 10.0}
    outlook = Outlook(expected, [PLAIN, PLAIN, FITTED, PLAIN, CROPPED, FITTED, MIXED])
    assert (outlook.done, outlook.total) == (0, 7)
    assert outlook.seconds_left() == 3 * 10 + 2 * 10 + 20 + 30
    assert outlook.seconds_left(0.25) == 100 - 2.5
    outlook.note(14)  # what plain takes is known now, and all others take 1.4 times what was expected
    assert outlook.seconds_left() == pytest.approx(2 * 14 + 1.4 * (2 * 10 + 20 + 30))
    outlook.note(18)  # 32 in place of 20
    assert outlook.seconds_left() == pytest.approx(16 + 1.6 * (2 * 10 + 20 + 30))
    outlook.note(500)  # with what was fitted, and so no measure of others
    assert outlook.seconds_left() == pytest.approx(16 + 500 + 1.6 * (20 + 30))
    assert outlook.seconds_left(0.5) == pytest.approx(8 + 500 + 1.6 * (20 + 30))
    outlook.note(16)
    outlook.note(16)  # 64 in place of 50
    assert outlook.seconds_left() == pytest.approx(500 + 1.28 * 30)
    outlook.note(600)
    outlook.note(1)
    assert (outlook.done, outlook.seconds_left(), outlook.seconds_left(0.5)) == (7, 0, 0)


def test_a_plan_is_reported_before_the_victims_that_are_missing(store, tmp_path, alone):
    told, lefts = [], []
    bench = toy_bench(store, tmp_path / "out", alone, report=lambda *done: told.append(done))
    bench = dataclasses.replace(
        bench,
        plan=lambda victims, seconds: told.append((victims, seconds)),
        left=lambda done, total, seconds: lefts.append((done, total, seconds)),
    )
    config = EvaluateConfig(victim=VICTIM, recipes=(Recipe.parse("mixup"), Recipe.parse("fixmatch-10")), seeds=(0,))
    evaluate(config, bench, may_repeat=lambda recipe: False)
    assert told[0][0] == 6
    assert 0 < told[0][1] < 600
    assert len(told) > 1
    # Once an epoch, and once a victim.
    assert [done for done, _, _ in lefts] == [0, 0, *(n for done in range(1, 6) for n in (done, done, done)), 6]
    assert {total for _, total, _ in lefts} == {6}
    assert all(seconds > 0 for done, _, seconds in lefts if done < 5)
    assert lefts[-1] == (6, 6, 0)
    told.clear()
    lefts.clear()
    evaluate(config, bench, may_repeat=lambda recipe: False)
    assert told == lefts == []


def test_controls_that_stores_share_are_planned_once(store, tmp_path, alone):
    other = make_store(tmp_path / "other", ToySource(120), alone, "method.epsilon=4")
    plans, lefts = [], []
    setup = Setup(
        source=ToySource(120),
        test=ToySource(60, seed=1),
        out=tmp_path / "out",
        world=alone,
        report=lambda *done: None,
        plan=lambda victims, seconds: plans.append((victims, seconds)),
        left=lambda done, total, seconds: lefts.append((done, total)),
    )
    config = EvaluateConfig(victim=VICTIM, recipes=(Recipe.parse("plain"),), seeds=(0,))
    compare_stores(config, {"a": store, "b": other}, setup)
    ((victims, seconds),) = plans
    assert victims == 5  # clean, and noise and protected samples of both
    assert 0 < seconds < 600
    assert lefts[-1] == (5, 5)
