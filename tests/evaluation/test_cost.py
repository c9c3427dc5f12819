"""What an evaluation will take is counted from what short trainings took."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from toys import ToySource, make_store, toy_bench

from hpcule.evaluation import cost
from hpcule.evaluation.cost import FORWARD, expected_seconds, extent
from hpcule.evaluation.evaluate import evaluate
from hpcule.evaluation.matrix import MatrixCell, Task
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


def test_each_recipe_counts_with_its_own_speed_and_length(store, alone, monkeypatch):
    data = TrainingData(ToySource(120), np.arange(120, dtype=np.int64), 2**20)
    task = Task(VICTIM, store, data, ToySource(60, seed=1))
    speed = {"plain": 2.0, "mixup": 5.0}
    monkeypatch.setattr(cost, "_seconds_a_sample", lambda victim, *others: speed[str(victim.countermeasures)])
    cells = [MatrixCell(Recipe.parse(name), "clean", seed) for name in speed for seed in (0, 1)]
    assert expected_seconds(task, cells, alone) == pytest.approx((2 * 2 + 2 * 5) * extent(VICTIM, 120, 60))


def test_a_plan_is_reported_before_the_victims_that_are_missing(store, tmp_path, alone):
    told = []
    bench = toy_bench(store, tmp_path / "out", alone, report=lambda *done: told.append(done))
    bench = dataclasses.replace(bench, plan=lambda victims, seconds: told.append((victims, seconds)))
    config = EvaluateConfig(victim=VICTIM, recipes=(Recipe.parse("mixup"), Recipe.parse("fixmatch-10")), seeds=(0,))
    evaluate(config, bench)
    assert told[0][0] == 6
    assert 0 < told[0][1] < 600
    assert len(told) > 1
    told.clear()
    evaluate(config, bench)
    assert told == []
