"""Mutated files for every parser; bench/fuzz.py has the parsers, and runs as many inputs as one has time for."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))
import fuzz
from fuzz_inputs import make_text
from fuzz_sources import Parser
from slowly import slow_but

QUICK = ["PNG", "DICOM", "shard", "study.yaml", "values of another rank", "MAT-file"]


@pytest.mark.parametrize("name", slow_but(QUICK, fuzz.PARSERS))
def test_each_input_is_taken_or_refused_in_one_line(name):
    counts, wrong = fuzz.fuzz(name, 15, seed=1)
    assert wrong == []
    assert counts.accepted + counts.refused == 15
    assert counts.refused > 0


def test_what_goes_wrong_is_counted(monkeypatch):
    def read(folder: Path) -> None:
        data = (folder / "file.yaml").read_bytes()
        assert data == b"a: 1\n", data
        raise fuzz.HpculeError("refused")

    monkeypatch.setitem(fuzz.PARSERS, "toy", Parser(make_text("a: 1\n"), read, valid=False))
    counts, wrong = fuzz.fuzz("toy", 20)
    assert counts.wrong == len(wrong) > 10
    assert "AssertionError" in wrong[0]


@pytest.mark.parametrize(
    ("work", "said"),
    [
        ("while True: pass", "more than 1 s"),
        ("import os; os.kill(os.getpid(), 9)", "SIGKILL"),
        ("[0] * 10**10", "Memory"),
    ],
)
def test_a_reader_that_hangs_or_dies_is_counted_too(monkeypatch, work, said):
    def read(folder: Path) -> None:
        if (folder / "file.yaml").read_bytes() != b"a: 1\n":
            exec(work)

    monkeypatch.setattr(fuzz, "SECONDS", 1.0)
    monkeypatch.setitem(fuzz.PARSERS, "toy", Parser(make_text("a: 1\n"), read))
    counts, wrong = fuzz.fuzz("toy", 1)
    assert counts.wrong == 1
    assert said in wrong[0]


def test_each_number_of_a_header_is_changed_on_its_own(monkeypatch):
    valid = "a: 1\nb: 20\n"

    def read(folder: Path) -> None:
        lines = (folder / "file.yaml").read_text().splitlines()
        assert sum(line not in lines for line in valid.splitlines()) < 2
        if "a: 9223372036854775807" in lines:
            raise fuzz.HpculeError("refused")

    monkeypatch.setitem(fuzz.PARSERS, "toy", Parser(make_text(valid), read, text=True))
    counts, wrong = fuzz.fuzz("toy", None)
    assert wrong == []
    assert (counts.accepted, counts.refused) == (6 - 1 + 7, 1), "a is 1 already"
