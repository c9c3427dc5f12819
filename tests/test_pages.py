"""Generated files are what their generator writes today."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
from documents import mismatches

from hpcule.craft.measured import measured_rows, measured_sentences, with_evidence
from hpcule.craft.stripped import StrippedRow, stripped_rows, stripped_sentences
from hpcule.craft.table import BUILT_IN
from hpcule.report.methods import stripping_table

ROOT = Path(__file__).parents[1]


def test_nothing_generated_is_stale():
    words = [sys.executable, str(ROOT / "tools" / "pages.py"), "--check"]
    finished = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr


def test_measured_figures_are_those_of_the_record():
    with (ROOT / "docs/studies/methods-small.csv").open() as file:
        cells = [cell for cell in csv.DictReader(file) if cell["variant"] == "sem"]
    (row,) = [row for row in measured_rows() if row["method"] == "sem"]
    assert row["protected"] == pytest.approx(
        sum(float(cell["protected_last"]) for cell in cells) / len(cells), abs=1e-4
    )
    assert (row["seeds"], row["samples"], row["record"]) == (2, 3000, "docs/studies/methods-small.csv")
    assert measured_sentences("sem")[0] == (
        "protected / random noise / clean: plain 29 / 49 / 50 %; 3,000 samples of cifar10, resnet-tiny, preset small, "
        "2 seeds (docs/studies/methods-small.csv)"
    )


def test_claims_stand_next_to_the_records_that_do_not_confirm_them():
    crops = "crop-flip 64 / 64 / 64 (docs/studies/methods-crops.csv, 2 seeds)"
    assert crops in with_evidence("pil", "crops, JPEG").partition("not confirmed here")[2]
    assert "jpeg-10 45 / 47 / 47" in with_evidence("pil", "crops, JPEG")
    assert crops not in with_evidence("pil", "JPEG")
    # OPS leaves a third of the clean control's accuracy, and REM's preset is too short to say anything.
    assert with_evidence("ops", "crops") == "crops"
    assert with_evidence("rem", "crops") == "crops"
    assert "preset small (too short to judge the method), 2 seeds" in measured_sentences("rem")[0]


def test_unequal_classes_are_judged_by_balanced_accuracy():
    rows = [row for row in measured_rows() if row["data"].endswith("busi256")]
    assert {(row["measure"], row["chance"]) for row in rows} == {("balanced accuracy", 0.3333)}
    record = ROOT / rows[0]["record"]
    with record.open() as file:
        cells = [
            cell
            for cell in csv.DictReader(file)
            if (cell["variant"], cell["recipe"]) == (rows[0]["variant"], rows[0]["recipe"])
        ]
    expected = sum(float(cell["protected_balanced"]) for cell in cells) / len(cells)
    assert rows[0]["protected"] == pytest.approx(expected, abs=1e-4)
    assert any(
        sentence.startswith(f"{rows[0]['variant']}, balanced accuracy, ")
        for row in rows[:1]
        for sentence in measured_sentences(row["method"])
    )


def test_records_that_vary_a_setting_say_nothing_of_a_method_as_it_comes():
    assert not any("batch" in row["record"] for row in measured_rows())
    assert measured_sentences("nothing of this name") == []


@pytest.mark.parametrize(("name", "rows"), [("measured", measured_rows), ("stripped", stripped_rows)])
def test_rows_stand_a_line_each(name, rows):
    lines = (ROOT / f"hpcule/craft/{name}.json").read_text().splitlines()[1:-1]
    assert [json.loads(line.rstrip(",")) for line in lines] == list(rows())


def test_rows_of_stripping_are_what_their_type_says():
    names = [(row["data"], row["method"], row["originals"]) for row in stripped_rows()]
    assert len(set(names)) == len(names)
    assert {method.partition(" by ")[0] for _, method, _ in names} <= BUILT_IN.keys()
    for row in stripped_rows():
        assert mismatches(row, StrippedRow) == []
        assert row["levels"].keys() == {"protected", "pattern", "filter"}
        assert row["accuracy"] is None or row["accuracy"].keys() == {"clean", *row["levels"]}


def test_stripping_in_a_sentence_and_in_a_table():
    (row,) = [
        row
        for row in stripped_rows()
        if (row["method"], row["originals"], row["data"]) == ("classwise", 1, "cifar10_lossless_subset")
    ]
    (sentence, *_) = stripped_sentences("classwise")
    assert "With one original of each class known" in sentence
    assert f"{row['levels']['protected']:.2f} levels as published" in sentence
    line = stripping_table([row]).splitlines()[-1]
    assert line.startswith("| classwise | small | class | 1 | 0.33 % |")
    # What was not trained leaves its cells empty.
    assert stripping_table([{**row, "accuracy": None}]).endswith(" | | | | |\n")
