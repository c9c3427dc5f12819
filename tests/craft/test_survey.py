"""The table of methods follows from what methods do, and from what was measured."""

from __future__ import annotations

import pytest
from toys import AnnotatedToys, ToySource

from hpcule.config.errors import DataError, UsageError
from hpcule.craft import measured
from hpcule.craft.preparation import check_task
from hpcule.craft.survey import describe
from hpcule.craft.table import METHODS, configure
from hpcule.report.methods import WIDTH, print_methods


@pytest.fixture(scope="module")
def rows():
    return {row["name"]: row for row in describe()[0]}


def takes(name, source, *overrides):
    """Whether a craft with this method begins on a source."""
    try:
        check_task(configure(name, "toys", preset=None, file={}, overrides=list(overrides)), source)
    except (DataError, UsageError):
        return False
    return True


@pytest.mark.parametrize("name", METHODS)
def test_the_table_says_what_a_craft_takes(rows, name):
    row = rows[name]
    scans, nameless = ToySource(12, (3, 16, 16)), ToySource(12, (3, 16, 16), labelled=False)
    if name == "mtl-ue":
        scans = AnnotatedToys(12)
    nameless.rate = scans.rate = None if row["data"] == "images" else 8000
    assert takes(name, scans)
    assert takes(name, nameless) == (row["labels"] in ("not needed", "by class"))
    scans.kind = "dicom"
    if row["data"] == "images":
        assert takes(name, scans) == row["medical"]
    if len(row["units"]) > 1:
        by_class = takes(name, nameless, "method.unit=class")
        assert by_class == (row["labels"] == "not needed")
    if row["labels"] == "or clusters":
        assert takes(name, nameless, "method.clusters=2")


def test_what_is_known_of_some_methods(rows):
    assert {name for name, row in rows.items() if row["labels"] == "not needed"} == {"uc"}
    assert {name for name, row in rows.items() if row["labels"] == "by class"} == {"cp"}
    assert {name for name, row in rows.items() if row["own_sizes"] == "drawn"} == {"texture"}
    assert {name for name, row in rows.items() if row["own_sizes"] == "no"} == {"ar", "lsp", "ops", "em-ops", "poscuda"}
    assert [rows[name]["units"] for name in ("em", "pue", "uc", "classwise")] == [
        ["sample", "class"],
        ["class", "sample"],
        ["cluster"],
        ["class"],
    ]


def test_attackers_with_trained_weights_are_shown_with_their_record(rows, monkeypatch, capsys):
    row = {"method": "pil", "record": "docs/studies/x.csv", "variant": "PIL", "data": "x", "chance": 0.1}
    row |= {"noise": 0.7, "clean": 0.8}
    recipes = {"plain": 0.9, "linear-probe@a": 0.3, "jpeg-50+crop-flip+fine-tune@a": 0.6, "simclr-20": 0.95}
    found = [{**row, "recipe": recipe, "protected": protected} for recipe, protected in recipes.items()]
    monkeypatch.setattr(measured, "measured_rows", lambda: found)
    assert measured.pretrained_rows("pil") == found[1:3]
    assert measured.pretrained_rows("em") == []
    print_methods([{**rows["pil"], "pretrained": measured.pretrained_rows("pil")}])
    assert "60 / 70 / 80" in capsys.readouterr().out


def test_methods_are_tried_first_that_withstood_the_best_attacker_with_trained_weights_best(monkeypatch):
    row = {"record": "docs/studies/x.csv", "data": "x", "clean": 0.8, "chance": 0.3, "recipe": "linear-probe@a"}
    reached = [
        ("pil", "PIL 8", 0.8),
        ("pil", "PIL 16", 0.2),
        ("pil", "PIL 16", 0.4),
        ("ops", "OPS", 0.6),
        ("lsp", "LSP", 0.9),
    ]
    found = [{**row, "method": name, "variant": variant, "protected": value} for name, variant, value in reached]
    monkeypatch.setattr(measured, "measured_rows", lambda: found)
    assert measured.hardest_pretrained(measured.pretrained_rows("pil")) == found[2]
    assert measured.hardest_pretrained([]) is None
    assert sorted(["lsp", "em", "ops", "pil"], key=measured.expected_order) == ["pil", "ops", "em", "lsp"]


def test_what_is_left_counts_and_not_what_guessing_reaches(monkeypatch):
    row = {"record": "docs/studies/x.csv", "recipe": "linear-probe@a", "clean": 0.8}
    found = [
        {**row, "method": "pil", "variant": "PIL", "data": "two classes", "protected": 0.5, "chance": 0.5},
        {**row, "method": "ops", "variant": "OPS", "data": "ten classes", "protected": 0.4, "chance": 0.1},
    ]
    monkeypatch.setattr(measured, "measured_rows", lambda: found)
    assert sorted(["ops", "pil"], key=measured.expected_order) == ["pil", "ops"]


def test_an_attacker_whose_clean_control_learns_little_is_not_the_best(monkeypatch):
    row = {"record": "docs/studies/x.csv", "data": "x", "chance": 0.3}
    found = [
        {**row, "method": "pil", "variant": "PIL", "recipe": "linear-probe@a", "protected": 0.5, "clean": 0.8},
        {**row, "method": "pil", "variant": "PIL", "recipe": "linear-probe@b", "protected": 0.4, "clean": 0.42},
        {**row, "method": "ops", "variant": "OPS", "recipe": "linear-probe@a", "protected": 0.6, "clean": 0.8},
    ]
    monkeypatch.setattr(measured, "measured_rows", lambda: found)
    assert measured.hardest_pretrained(measured.pretrained_rows("pil")) == found[0]
    assert sorted(["ops", "pil"], key=measured.expected_order) == ["pil", "ops"]


def test_a_terminal_of_100_columns_has_a_line_for_each_method(rows, capsys):
    print_methods(list(rows.values()))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= WIDTH
    heading = next(place for place, line in enumerate(lines) if line.split()[:2] == ["method", "one"])
    assert [line.split()[0] for line in lines[heading + 2 : heading + 2 + len(rows)]] == list(rows)
    text = " ".join(" ".join(lines[:heading]).split())
    for row in rows.values():
        assert row["weaknesses"] in text
        assert row["cost"] in text
