"""An evaluation on volumes: victims in three dimensions, recipes for volumes, and the middle slice in reports."""

import pytest
from toys import alone, make_store
from volumes import VolumeToys

from hpcule.config.errors import UsageError
from hpcule.evaluation.bench import Bench
from hpcule.evaluation.evaluate import evaluate
from hpcule.evaluation.samples import pictures
from hpcule.evaluation.suites import EvaluateConfig, for_tasks, suite_config
from hpcule.report.protection import render
from hpcule.victim.config import VictimConfig
from hpcule.victim.recipe import Recipe

VICTIM = VictimConfig(pixel_network="unet-small", epochs=1, batch=6, optimizer="adam", learning_rate=0.01)


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    out, source = tmp_path_factory.mktemp("volumes"), VolumeToys(12)
    store = make_store(out / "store", source, alone(), "method.task=segmentation", "store.shards=2")
    test = VolumeToys(6, first=12)
    return Bench(store=store, source=source, test=test, out=out / "out", world=alone(), report=lambda *done: None)


def test_victims_segment_volumes_and_the_report_says_so(bench):
    config = for_tasks(EvaluateConfig(victim=VICTIM, seeds=(0,)), ["segmentation"])
    results, shown = evaluate(config, bench)
    assert (results["data"]["depth"], results["data"]["shape"]) == (8, [1, 64, 8])
    assert 0 <= results["recipes"][0]["sets"][0]["mean"] <= 1
    assert "8 × 8 × 8" in render(results, shown)


def test_pictures_are_of_the_slice_in_the_middle(bench):
    shown = pictures(bench.store, bench.source)
    assert shown.clean.shape == (8, 1, 8, 8)


def test_recipes_for_images_are_refused_and_those_of_suites_left_out(bench):
    config = for_tasks(EvaluateConfig(recipes=(Recipe.parse("jpeg-10"),), victim=VICTIM), ["segmentation"])
    with pytest.raises(UsageError, match="jpeg-10: for images, and spheres holds volumes; valid steps for them"):
        evaluate(config, bench)
    suite = suite_config("quick", bench.source, {})
    assert [recipe.name for recipe in suite.recipes] == ["plain", "mix-0.5"]
    assert any("they are for images, and samples are volumes" in text for text in suite.left_out)
