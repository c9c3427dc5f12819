from __future__ import annotations

import pytest

from hpcule.report.study import SHOWN, factor_names, variant_rows
from hpcule.study.config import StudyConfig


def row(variant, seed, protected, *, seconds=1.0, invalid=False, **more):
    return {
        "variant": variant,
        "seed": seed,
        "clean_last": 0.5,
        "noise_last": 0.45,
        "protected_last": protected,
        "protected_train": 1.0,
        "craft_seconds": seconds,
        "peak_memory_mebibytes": 500 + seed,
        "invalid": invalid,
        **more,
    }


def test_those_that_protect_most_come_first():
    rows = [row("weak", 0, 0.4), row("weak", 1, 0.5), row("strong", 0, 0.1, seconds=9), row("strong", 1, 0.2)]
    first, second = variant_rows(rows, ["variant"])
    assert (first.values, second.values) == (["strong"], ["weak"])
    assert dict(first.accuracies) == pytest.approx({"clean": 0.5, "noise": 0.45, "protected": 0.15})
    assert first.below == pytest.approx(0.35)
    assert (first.seconds, first.peak) == (9, 501)
    assert [role for role, _ in first.accuracies] == list(SHOWN)


def test_each_point_of_the_other_factors_has_its_row_and_invalid_cells_none():
    rows = [row("a", 0, 0.1, recipe="plain"), row("a", 0, 0.4, recipe="jpeg-10"), row("b", 0, 0.2, invalid=True)]
    found = variant_rows(rows, ["variant", "recipe"])
    assert [entry.values for entry in found] == [["a", "plain"], ["a", "jpeg-10"]]


def test_variants_are_a_factor_where_there_are_several():
    settings = {"method": "pil", "data": "digits", "recipes": ("plain", "crop-flip")}
    one, two = {"a": {"method": "pil"}}, {"a": {"method": "pil"}, "b": {"method": "em"}}
    assert factor_names(StudyConfig(name="n", variants=two, **settings)) == ["variant", "recipe"]
    assert factor_names(StudyConfig(name="n", variants=one, **settings)) == ["recipe"]
    assert factor_names(StudyConfig(name="n", method="pil", data="digits")) == ["rate"]
    rates = {"victim_rates": ("constant", "linear"), "victim_rate_batch": 32}
    assert factor_names(StudyConfig(name="n", method="pil", data="digits", **rates)) == ["victim_rate"]
