from __future__ import annotations

from xml.etree import ElementTree

from hpcule.report.mixtures import mixtures
from hpcule.report.protection import render


def named(recipe, name, share):
    return {**recipe, "name": name, "gain": {**recipe["gain"], "share": share}}


def test_a_curve_runs_from_clean_samples_to_protected_ones(make):
    results = make.results(
        [make.plain(), named(make.mixed((0.5, 0.5, 0.5)), "mix-0.8", 0.8), named(make.mixed(), "mix-0.2", 0.2)]
    )
    (chart,) = mixtures(results)
    root = ElementTree.fromstring(chart)
    described = " ".join(root.itertext())
    assert "0%, 20%, 80%, 100%" in described
    clean, protected = (
        entry["mean"] for entry in results["recipes"][0]["sets"] if entry["set"] in ("clean", "protected")
    )
    expected = ", ".join(f"{100 * value:.1f}%" for value in (clean, 0.62, 0.5, protected))
    assert f"mixture {expected}" in described
    assert f"its clean part alone {100 * clean:.1f}%, 59.0%, 59.0%, none" in described


def test_there_is_no_curve_without_mixtures_of_the_same_recipe(make, pictures):
    assert mixtures(make.results([make.plain(), make.cropped()])) == []
    assert mixtures(make.results([make.plain(), named(make.mixed(), "mix-0.5@vgg16", 0.5)])) == []
    assert mixtures(make.results([make.plain(), named(make.mixed(), "dfr-10", 0.9)])) == []
    assert "Mixed with clean" not in render(make.results([make.plain()]), pictures)


def test_the_report_shows_it(make, pictures):
    page = render(make.results([make.plain(), make.mixed()]), pictures)
    assert "Mixed with clean images" in page
    assert "Accuracy over the protected share" in page
