"""Published figures next to ours, as the package has them."""

import json
from pathlib import Path

import pytest
from documents import mismatches

from hpcule.config.errors import UsageError
from hpcule.config.tree import build_config
from hpcule.craft.measured import measured_rows
from hpcule.craft.records import RecordDocument, find_record, record_sentence, records, records_of
from hpcule.report.methods import records_table
from hpcule.study.config import StudyConfig

ROOT = Path(__file__).parents[2]


def test_records_are_what_their_type_says_and_those_of_the_repository():
    files = [json.loads(path.read_text()) for path in sorted((ROOT / "results").glob("*/*.json"))]
    assert files == list(records())
    assert files
    for record in records():
        assert mismatches(record, RecordDocument) == []


def test_our_figure_is_a_row_of_the_study_that_a_record_names():
    for record in records():
        assert record["measured"] in measured_rows()
        assert record["measured"]["record"] == f"docs/studies/{record['study']}.csv"
        assert 0 < record["published"]["protected"] < 1


def test_the_settings_are_a_study_of_one_row():
    for record in records():
        study = build_config(StudyConfig, record["settings"])
        row = record["measured"]
        assert (study.method, study.preset, study.victim.network) == (record["method"], row["preset"], row["network"])
        assert ([recipe.name for recipe in study.recipes], len(study.seeds)) == ([row["recipe"]], row["seeds"])
        assert (study.variants, study.factors, study.subset) == ({}, {}, row["samples"])


def test_a_record_is_found_by_method_and_data():
    assert find_record("pil", "cifar10")["published"]["protected"] == 0.1277
    with pytest.raises(UsageError, match=r"no record of pil on mnist; records are there of ar cifar10, .*pil cifar10"):
        find_record("pil", "mnist")


def test_both_figures_in_a_sentence_and_in_a_table():
    (record,) = records_of("pil")
    assert record_sentence(record) == (
        "cifar10, published protected / clean: 12.8 / 92.1 % (ResNet-18; README of the authors' code, "
        "github.com/jinlinll/pil at 50a2803); here protected / random noise / clean: 64 / 64 / 64 % (resnet-tiny, "
        "crop-flip, 3,000 samples, preset small, reduced, 2 seeds)"
    )
    line = records_table([record]).splitlines()[-1]
    assert line.startswith("| [pil](methods/pil.md) cifar10 | 12.77, clean 92.11 (ResNet-18) | 64.2 (56.9 to 71.5) | ")
    assert "published protected: 11.8 % (" in record_sentence(records_of("ar")[0])
    assert records_of("uc") == []
