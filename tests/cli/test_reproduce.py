"""`hpcule reproduce` as its user types it, on records that a study of digits has made."""

import csv
import json

import pytest
from documents import mismatches

from hpcule.cli.main import main
from hpcule.config.tree import build_config
from hpcule.craft import records
from hpcule.study.config import StudyConfig
from hpcule.study.measured_rows import measured_rows_of
from hpcule.study.repetition import RecordAgainDocument

SETTINGS = {
    "name": "toy",
    "data": "digits",
    "method": "pil",
    "preset": "smoke",
    "craft": {"deterministic": True},
    "recipes": ["plain"],
    "seeds": [0, 1],
    "subset": 600,
    "victim": {"network": "convnet", "epochs": 4, "batch": 16, "learning_rate": 0.05},
    "world": {"threads": 1},
}


@pytest.fixture(scope="module")
def studied(tmp_path_factory):
    """A finished study of PIL on digits: its row, and its cells."""
    folder = tmp_path_factory.mktemp("studied")
    (folder / "study.json").write_text(json.dumps(SETTINGS))  # which is YAML, too
    assert main(["study", "run", str(folder / "study.json"), "--out", str(folder / "out")]) == 0
    cells = list(csv.DictReader((folder / "out" / "cells.csv").read_text().splitlines()))
    (row,) = measured_rows_of(build_config(StudyConfig, SETTINGS), cells, "toy.csv")
    return row


@pytest.fixture
def put(studied, tmp_path, monkeypatch):
    """Puts a record of that study in place of those of the package."""

    def changed(**changes):
        record = {
            "method": "pil",
            "data": "digits",
            "published": {"protected": 0.5, "clean": 0.9, "network": "ResNet-18", "source": "a page of a book"},
            "study": "toy",
            "variant": "pil",
            "network": "convnet",
            "recipe": "plain",
            "measured": studied,
            "settings": SETTINGS,
        }
        (tmp_path / "records.json").write_text(json.dumps([{**record, **changes}]))
        monkeypatch.setattr(records, "RECORDS", tmp_path / "records.json")
        records.records.cache_clear()

    changed()
    yield changed
    records.records.cache_clear()


def test_a_record_comes_out_as_it_was(run, put, studied, tmp_path):
    row = studied
    assert len(set(row["deltas"])) == 2
    code, out, error = run("reproduce", "pil", "digits", "--out", tmp_path / "again")
    assert code == 0, error
    assert "pil on digits, published: 50.00 %, clean 90.00 % (ResNet-18)\nSource: a page of a book" in out
    for title, name in (("protected", "protected"), ("random noise", "noise"), ("clean", "clean")):
        (line,) = [line for line in out.splitlines() if line.strip().startswith(title)]
        assert line.count(f"{100 * row[name]:.1f}") >= 2
        assert line.split()[-1] == "+0.0"
    assert "The perturbations are the same, by SHA-256." in out
    # The folder is a study, which is not done again; another record has other figures.
    put(
        measured={**row, "protected": round(row["protected"] - 0.1, 4), "deltas": ["0" * 64] * 2},
        note="of another place",
    )
    code, out, _ = run("reproduce", "pil", "digits", "--out", tmp_path / "again")
    assert code == 0
    assert "What else differs: of another place." in out
    assert "+10.0" in out
    assert "The perturbations are others than those of the record" in out


def test_data_from_elsewhere_and_json(run, put, studied, tmp_path):
    put(measured={**studied, "deltas": []})
    code, out, error = run(
        "reproduce",
        "pil",
        "digits",
        "--data",
        "digits:train",
        "--test",
        "digits:test",
        "--out",
        tmp_path / "b",
        "--json",
    )
    assert code == 0, error
    found = json.loads(out)
    assert mismatches(found, RecordAgainDocument) == []
    assert found["same_deltas"] is None
    assert found["repeated"]["data"] == "digits:train"
    assert set(found["differences"].values()) == {0}


def test_a_clean_control_that_has_not_learnt_shows_nothing(run, put, tmp_path):
    put(settings={**SETTINGS, "victim": {**SETTINGS["victim"], "epochs": 1, "learning_rate": 1e-6}})
    code, _, error = run("reproduce", "pil", "digits", "--out", tmp_path / "again")
    assert code == 1
    assert "the clean control has not learnt, so this repetition shows nothing" in error


@pytest.mark.slow
def test_a_dry_run_estimates_and_leaves_nothing(run, put, studied, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.rglob("*"))
    code, out, error = run("reproduce", "pil", "digits", "--dry-run", "--json")
    assert code == 0, error
    assert f"the record took {studied['hours']:.2f} worker-hours" in error
    (plan,) = json.loads(out)["plans"]
    assert (plan["crafts"], plan["victims"]) == (2, 6)
    assert set(tmp_path.rglob("*")) == before


def test_what_has_no_record_is_refused(run):
    code, _, error = run("reproduce", "pil", "nothing")
    assert code == 2
    assert "no record of pil on nothing; records are there of " in error
