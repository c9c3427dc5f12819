"""Generated files are what their generator writes today."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from hpcule.craft.measured import measured_rows, measured_sentences

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
    assert measured_sentences("sem") == [
        "protected / random noise / clean: plain 29 / 49 / 50 %; 3,000 samples of cifar10, resnet-tiny, preset small, "
        "2 seeds (docs/studies/methods-small.csv)"
    ]


def test_records_that_vary_a_setting_say_nothing_of_a_method_as_it_comes():
    assert not any("batch" in row["record"] for row in measured_rows())
    assert measured_sentences("nothing of this name") == []


def test_rows_stand_a_line_each():
    lines = (ROOT / "hpcule/craft/measured.json").read_text().splitlines()[1:-1]
    assert [json.loads(line.rstrip(",")) for line in lines] == list(measured_rows())
