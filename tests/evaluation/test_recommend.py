"""A tournament keeps its time, goes on where it was, and says who could not take part."""

from __future__ import annotations

import dataclasses

import pytest
from documents import mismatches
from toys import ToySource

from hpcule.config.errors import DataError, StoppedError, UsageError
from hpcule.config.tree import build_config
from hpcule.craft.table import METHODS
from hpcule.evaluation import recommend as module
from hpcule.evaluation.bench import Setup
from hpcule.evaluation.recommend import Deadline, RecommendationDocument, RecommendConfig, advice, candidates, recommend
from hpcule.victim.config import VictimConfig
from hpcule.victim.recipe import Recipe

VICTIM = VictimConfig(network="convnet", epochs=4, batch=30, learning_rate=0.05, precision="fp32")
CONFIG = RecommendConfig(methods=("classwise", "pil"), preset="smoke", samples=120, victim=VICTIM, recipes=(Recipe(),))


def hold(world, out, minutes=10.0, **changes):
    """The results, and what was done."""
    told = []
    setup = Setup(
        source=ToySource(150),
        test=ToySource(60, seed=1),
        out=out,
        world=world,
        report=lambda label, done, total: told.append(label),
    )
    results, _ = recommend(dataclasses.replace(CONFIG, **changes), minutes, "toys", setup)
    return results, list(dict.fromkeys(told))


def test_candidates_are_all_methods_for_images_that_need_no_checkpoint():
    fit = {name for name, method in METHODS.items() if method.facts.data == "images"}
    found = candidates()
    assert len(found) == len(set(found))
    assert set(found) == {name for name in fit if not METHODS[name].facts.needs_checkpoint}


def test_cheap_candidates_come_first_and_among_those_what_protects():
    order = {name: number for number, name in enumerate(candidates())}
    assert order["pil"] < order["lsp"] < order["em"] < order["rem"]
    assert order["ops"] < order["classwise"]


def test_every_method_is_crafted_and_measured_on_a_subset(alone, tmp_path):
    results, told = hold(alone, tmp_path)
    assert {row["name"] for row in results["stores"]} == {"classwise", "pil"}
    assert mismatches(results, RecommendationDocument) == []
    assert results["data"]["train"] == 120
    assert results["unreached"] == []
    assert results["recommended"] in (None, results["stores"][0]["name"])
    assert any(label.startswith("pil: ") for label in told)
    assert hold(alone, tmp_path)[1] == [], "all is there"


def test_the_first_is_measured_and_the_others_wait_for_a_larger_budget(alone, tmp_path):
    results, _ = hold(alone, tmp_path, minutes=1e-9)
    assert [row["name"] for row in results["stores"]] == ["classwise"]
    assert results["unreached"] == ["pil"]
    assert "Not reached" in " ".join(advice(results, "toys"))
    again, told = hold(alone, tmp_path)
    assert again["unreached"] == []
    assert not any(label.startswith("classwise") for label in told)


def test_a_craft_is_stopped_by_the_clock_and_goes_on_later(alone, tmp_path, monkeypatch):
    class Short(Deadline):
        """Set the fourth time that it is asked with an end."""

        asked = 0

        def __bool__(self):
            self.asked += self.end < float("inf")
            return self.asked >= 4

    monkeypatch.setattr(module, "Deadline", Short)
    results, _ = hold(alone, tmp_path)
    assert results["unreached"] == ["pil"]
    assert list((tmp_path / "stores" / "pil" / "run").glob("checkpoint-*"))
    monkeypatch.undo()
    assert hold(alone, tmp_path)[0]["unreached"] == []


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
    assert [row["name"] for row in results["stores"]] == ["classwise"]
    assert "poscuda" in results["refused"]
    assert "poscuda cannot take these samples" in " ".join(advice(results, "toys"))
    with pytest.raises(DataError, match="no method can take these samples"):
        hold(alone, tmp_path, methods=("poscuda",))


def hold_on(world, out):
    results, _ = hold(world, out, minutes=1e-9)
    return results


def test_ranks_agree_on_the_time(pool, tmp_path):
    first, second = pool.run(hold_on, tmp_path)
    assert first == second
    assert first["unreached"] == ["pil"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"methods": ["pill"]}, "did you mean 'pil'"),
        ({"methods": []}, "at least one"),
        ({"methods": ["pil", "pil"]}, "none twice"),
        ({"recipes": ["mix-0.5"]}, "at least one without clean samples"),
    ],
)
def test_what_makes_no_tournament_is_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        build_config(RecommendConfig, settings)
