"""A run's progress is one line on a terminal, and a line now and then elsewhere."""

from __future__ import annotations

import io
import re

import pytest

from hpcule.cli import progress
from hpcule.cli.progress import Progress
from hpcule.evaluation.suites import EvaluateConfig
from hpcule.report.estimates import planned, remaining
from hpcule.victim.recipe import Recipe


class Terminal(io.StringIO):
    def isatty(self):
        return True


def victims(shown):
    """Two victims of two epochs, each in a stage of its own."""
    for number, stage in enumerate(["plain, clean, seed 0", "plain, noise, seed 0"]):
        for epoch in (1, 2):
            shown.left = remaining(number, 2, 90.0 * (2 - number), 1)
            shown.update(stage, 2 * number + epoch, 4)


def test_a_log_gets_lines_with_what_is_left(capsys, monkeypatch):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    with Progress() as shown:
        shown.update("noise", 1, 9, ", loss 2")
        victims(shown)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "hpcule: noise 1/9, loss 2"
    assert lines[1] == "hpcule: plain, clean, seed 0 1/4, 0 of 2 victims done, about 3 min 0 s left"
    assert lines[4] == "hpcule: plain, noise, seed 0 4/4, 1 of 2 victims done, about 90.0 s left"


def test_a_log_is_not_flooded(capsys):
    with Progress() as shown:
        victims(shown)
    assert capsys.readouterr().err == ""


def test_a_terminal_has_one_line_for_all_stages(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    with Progress() as shown:
        victims(shown)
        shown._bar.refresh()
    frames = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue())
    assert "plain, noise, seed 0" in frames
    assert "4/4 1 of 2 victims done, about 90.0 s left" in frames
    # No frame has two of them: the line of a stage that is over makes way for the next.
    assert "plain, clean" not in frames.rpartition("plain, noise")[0].splitlines()[-1]
    assert terminal.getvalue().count("\n") <= 2


@pytest.mark.parametrize(("workers", "each"), [(1, ""), (2, " of each worker")])
def test_sentences_about_victims(workers, each):
    config = EvaluateConfig(recipes=(Recipe.parse("plain"), Recipe.parse("dvae"), Recipe.parse("dvae+crop-flip")))
    sentence = planned(config, 12, 75.0)
    assert sentence.startswith("12 victims to train, about 75.0 s, judged by a short training of each recipe")
    assert sentence.endswith(", and what fitting dvae takes")
    assert "fitting" not in planned(EvaluateConfig(), 12, 75.0)
    assert remaining(3, 12, 5.0, workers) == f"3 of 12 victims{each} done, about 5.00 s left"
