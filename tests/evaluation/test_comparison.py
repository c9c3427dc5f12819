"""Several stores side by side: the same controls, the best worst case first, and what its order does not say."""

from __future__ import annotations

import copy

import pytest
from documents import mismatches
from toys import ToySource, make_store

from hpcule.evaluation.bench import Setup
from hpcule.evaluation.comparison import ComparisonDocument, compare_stores, summarise_stores, worst_accuracy
from hpcule.evaluation.suites import EvaluateConfig
from hpcule.report.comparison import comparison_verdict, comparison_warnings, print_comparison, write_comparison
from hpcule.victim.config import VictimConfig
from hpcule.victim.recipe import Recipe


@pytest.fixture
def evaluated(make):
    """Results of a store that leaves these accuracies, one a seed, without and with crops."""

    def build(plain, cropped, noise=(0.85, 0.85)):
        clean = (0.9,) * len(noise)
        return make.results([make.plain(clean, noise, plain), make.cropped(clean, noise, cropped)])

    return build


@pytest.fixture
def three(evaluated):
    return {
        "fragile": evaluated((0.1, 0.1), (0.8, 0.8)),
        "steady": evaluated((0.3, 0.3), (0.3, 0.3)),
        "useless": evaluated((0.9, 0.9), (0.85, 0.85)),
    }


def test_the_best_worst_case_comes_first(three):
    found = summarise_stores(three)
    assert [row["name"] for row in found["stores"]] == ["steady", "fragile", "useless"]
    assert [row["worst"] for row in found["stores"]] == ["plain", "crop-flip", "plain"]
    assert [worst_accuracy(row) for row in found["stores"]] == pytest.approx([0.3, 0.8, 0.9])
    assert found["clean"] == pytest.approx({"plain": 0.9, "crop-flip": 0.9})
    left = found["stores"][1]["recipes"]["crop-flip"]["left"]
    assert left == pytest.approx((0.8 - 0.1) / (0.9 - 0.1))
    assert found["seeds"] == 2
    assert "steady" in comparison_verdict(found)
    assert "30.0%" in comparison_verdict(found)
    assert comparison_verdict(summarise_stores({"useless": three["useless"]})).startswith(
        "No store protects in its worst case"
    )


def test_what_luck_could_explain_is_said(three, evaluated):
    said = " ".join(comparison_warnings(summarise_stores(three)))
    assert "useless is no better than random noise" in said
    assert "fragile is no better" not in said
    assert "cannot be distinguished" not in said
    assert "With one seed" not in said
    close = {"one": evaluated((0.3,), (0.3,), noise=(0.85,)), "two": evaluated((0.31,), (0.2,), noise=(0.85,))}
    said = " ".join(comparison_warnings(summarise_stores(close)))
    assert "two cannot be distinguished from one" in said
    assert "With one seed" in said


def test_reduced_settings_and_other_budgets_are_named(three):
    three["steady"]["reduced"] = True
    three["fragile"]["protection"] = {**three["fragile"]["protection"], "epsilon": 4.0}
    said = " ".join(comparison_warnings(summarise_stores(three)))
    assert "reduced settings: steady." in said
    assert "different budgets" in said


def test_without_a_control_that_learnt_nothing_is_compared(three):
    invalid = {name: {**results, "status": "invalid"} for name, results in three.items()}
    found = summarise_stores(invalid)
    assert comparison_verdict(found).startswith("INVALID")
    assert comparison_warnings(found) == []


def test_recipes_that_show_nothing_have_no_share(three):
    broken = copy.deepcopy(three)
    broken["steady"]["recipes"][1]["invalid_because"] = "too short"
    assert summarise_stores(broken)["stores"][0]["recipes"]["crop-flip"]["left"] is None


def test_the_page_and_the_table_name_every_store(three, tmp_path, capsys):
    found = summarise_stores(three)
    write_comparison(found, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    print_comparison(found)
    printed = capsys.readouterr().out
    for name in three:
        assert f'href="reports/{name}/report.html"' in page
        assert name in printed
    assert page.index("steady") < page.index("useless")
    assert page.count('class="worst"') == 1


@pytest.mark.slow
def test_stores_share_their_clean_controls(alone, tmp_path):
    source = ToySource(120)
    stores = {name: make_store(tmp_path / name, source, alone, f"method.epsilon={name[1:]}") for name in ("e4", "e96")}
    victim = VictimConfig(network="convnet", epochs=15, batch=30, learning_rate=0.05, precision="fp32")
    config = EvaluateConfig(victim=victim, recipes=(Recipe(), Recipe.parse("mix-0.5")), seeds=(0,))
    told = []
    setup = Setup(
        source=source,
        test=ToySource(60, seed=1),
        out=tmp_path,
        world=alone,
        report=lambda label, done, total: told.append(label),
    )
    found, each = compare_stores(config, stores, setup)
    clean = [label for label in dict.fromkeys(told) if "clean" in label or "part" in label]
    assert clean == ["e4: plain, clean, seed 0", "e4: mix-0.5, part, seed 0"]
    assert list(each) == ["e4", "e96"]
    assert mismatches(found, ComparisonDocument) == []
    accuracies = [worst_accuracy(row) for row in found["stores"]]
    assert accuracies == sorted(accuracies)
    assert set(found["titles"]) == {"plain"}, "a mixture is no worst case"
    assert all("psnr_db" in row for row in found["stores"])
