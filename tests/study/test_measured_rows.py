"""What rows of a study's cells say of a method."""

import pytest

from hpcule.config.tree import build_config
from hpcule.study.config import StudyConfig
from hpcule.study.measured_rows import measured_rows_of


def study(**settings):
    tree = {"name": "toys", "data": "toys", "method": "pil", "seeds": [0, 1], "victim": {"network": "convnet"}}
    return build_config(StudyConfig, {**tree, **settings})


def cell(seed=0, **values):
    plain = {
        "recipe": "plain",
        "seed": seed,
        "samples": 60,
        "chance": 0.1,
        "invalid": False,
        "protected_last": 0.2,
        "noise_last": 0.7,
        "clean_last": 0.8,
        "craft_seconds": 36,
        "craft_worker_hours": 0.02,
        "protected_seconds": 1800,
        "noise_seconds": 1800,
        "clean_seconds": 3600,
        "craft_deltas": "",
    }
    return {name: str(value) for name, value in {**plain, **values}.items()}


def test_a_row_over_two_seeds():
    cells = [cell(0, craft_deltas="aa", victim_workers=2), cell(1, protected_last=0.4, craft_deltas="bb")]
    (row,) = measured_rows_of(study(), cells, "cells.csv")
    assert (row["method"], row["variant"], row["seeds"], row["record"]) == ("pil", "pil", 2, "cells.csv")
    assert (row["protected"], row["noise"], row["clean"]) == (0.3, 0.7, 0.8)
    # 0.3 -+ t(0.975, 1) * 0.1, cut to [0, 1]
    assert row["interval"] == [0, 1]
    # Crafts of 0.02 hours each, and victims of two hours, jointly trained by two workers and by one.
    assert row["hours"] == pytest.approx(4.04 + 2)
    assert row["deltas"] == ["aa", "bb"]
    assert row["reduced"] is False


def test_one_seed_has_no_interval_and_earlier_studies_no_hashes():
    early = {name: value for name, value in cell().items() if name != "craft_deltas"}
    (row,) = measured_rows_of(study(), [early], "cells.csv")
    assert (row["interval"], row["deltas"]) == (None, [])


@pytest.mark.parametrize(("settings", "reduced"), [({"preset": "small"}, True), ({"subset": 60}, True), ({}, False)])
def test_a_part_of_the_samples_or_another_preset_is_reduced(settings, reduced):
    (row,) = measured_rows_of(study(**settings), [cell()], "cells.csv")
    assert row["reduced"] is reduced


def test_variants_networks_and_recipes_have_rows_of_their_own():
    varied = study(variants={"a": {}, "b": {"preset": "small"}}, factors={"victim.network": ["convnet", "resnet-tiny"]})
    cells = [
        cell(variant=variant, protected_last=value, **{"victim.network": network})
        for variant, network, value in (("a", "convnet", 0.1), ("a", "resnet-tiny", 0.2), ("b", "convnet", 0.3))
    ]
    rows = list(measured_rows_of(varied, cells, "cells.csv"))
    assert [(row["variant"], row["network"], row["preset"], row["protected"]) for row in rows] == [
        ("a", "convnet", "paper", 0.1),
        ("a", "resnet-tiny", "paper", 0.2),
        ("b", "convnet", "small", 0.3),
    ]


def test_what_has_not_learnt_has_no_row():
    cells = [cell(invalid=True), cell(1, recipe="crop-flip")]
    assert list(measured_rows_of(study(), cells, "cells.csv")) == []
    # The measure of unequal classes is another than that by which cells are invalid.
    unequal = cell(chance=0.7, balanced_chance=0.5, clean_balanced=0.55, protected_balanced=0.5, noise_balanced=0.5)
    assert list(measured_rows_of(study(), [unequal], "cells.csv")) == []
