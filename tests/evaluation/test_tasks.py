"""An evaluation over several tasks: each with its own measure, chance and controls."""

import numpy as np
import pytest
from toys import AnnotatedToys, alone, make_store

from hpcule.config.errors import DataError
from hpcule.evaluation.bench import Bench
from hpcule.evaluation.claims import claims, verdict
from hpcule.evaluation.evaluate import evaluate
from hpcule.evaluation.results import left, most_successful, victims, worst_recipe
from hpcule.evaluation.suites import EvaluateConfig, for_tasks
from hpcule.report.protection import render
from hpcule.victim.config import VictimConfig

VICTIM = VictimConfig(
    network="convnet", pixel_network="unet-small", epochs=6, batch=20, optimizer="adam", learning_rate=0.01
)


def sources():
    found = AnnotatedToys(60), AnnotatedToys(40, seed=1)
    for source in found:
        source.labels = source.class_names = None
    return found


def measured(tmp_path, tasks):
    source, test = sources()
    store = make_store(tmp_path / "store", source, alone(), "method.task=segmentation", "method.epsilon=40")
    bench = Bench(store=store, source=source, test=test, out=tmp_path / "out", world=alone(), report=lambda *done: None)
    config = for_tasks(EvaluateConfig(victim=VICTIM, seeds=(0,)), tasks)
    return evaluate(config, bench)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return measured(tmp_path_factory.mktemp("tasks"), ["labels", "segmentation", "rotation"])


def test_every_task_has_its_measure_its_chance_and_its_controls(found):
    results, _ = found
    assert [recipe["name"] for recipe in results["recipes"]] == ["labels:plain", "segmentation:plain", "rotation:plain"]
    assert [recipe["measure"] for recipe in results["recipes"]] == ["mean AUC", "mean IoU", "accuracy"]
    assert [recipe["chance"] for recipe in results["recipes"]][::2] == [0.5, 0.25]
    for recipe in results["recipes"]:
        assert [entry["set"] for entry in recipe["sets"]] == ["clean", "noise", "protected"]
        assert recipe["settings"]["task"] == recipe["name"].partition(":")[0]
    assert "structure" not in results, "there are no classes that deltas could show"


def test_the_worst_case_over_tasks_is_what_is_left_of_one(found):
    results, _ = found
    learnt = [recipe for recipe in results["recipes"] if "invalid_because" not in recipe]
    assert learnt
    worst = worst_recipe(results)
    assert left(worst) == max(left(recipe) for recipe in learnt)
    assert most_successful(learnt) == worst
    assert worst["measure"] in verdict(results)
    text = " ".join(claims(results))
    assert "25.0% of accuracy" in text
    assert "50.0% of mean AUC" in text


def test_the_report_names_the_measures(found):
    page = render(*found)
    assert "Mean IoU on clean test images, segmentation, no augmentation" in page
    assert "Mean AUC on clean test images" in page


def test_the_measures_of_the_last_epoch_are_those_of_the_curve(found):
    results, _ = found
    for recipe in results["recipes"]:
        for victim in victims(recipe, "clean")["seeds"]:
            assert victim["last"] == victim["curve"][-1]["test"]
            assert np.isfinite(victim["train_last"])


def test_a_task_that_the_data_cannot_have(tmp_path):
    with pytest.raises(DataError, match="has no labels"):
        measured(tmp_path, ["label"])
