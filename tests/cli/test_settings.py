"""`hpcule settings`, and the tables that it and `hpcule methods` print for the pages."""

from __future__ import annotations

import json

import pytest

from hpcule.config.tree import to_tree
from hpcule.craft.table import METHODS, configure


@pytest.mark.parametrize("name", METHODS)
def test_values_are_those_of_a_run(run, name):
    code, out, _ = run("settings", name, "--json")
    assert code == 0
    rows = {row["name"].removeprefix("method."): row for row in json.loads(out)}
    for preset in ("paper", "small", "smoke"):
        values = to_tree(configure(name, "toys", preset=preset, file={}, overrides=[]).method)
        assert {key: row["values"][preset] for key, row in rows.items()} | {"name": name} == values


def test_one_preset(run):
    _, out, _ = run("settings", "pil", "--preset", "small", "--json")
    epochs = next(row for row in json.loads(out) if row["name"] == "method.epochs")
    assert (epochs["values"], epochs["type"], epochs["valid"]) == (
        {"small": 10},
        "whole number",
        "whole numbers from 0",
    )


def test_a_table_for_a_page(run):
    _, out, _ = run("settings", "pil", "--markdown")
    lines = out.splitlines()
    assert lines[0] == "| setting | paper | small | smoke | valid | what |"
    passes = "Passes over all samples of the surrogate's training."
    assert f"| `method.epochs` | 30 | 10 | 5 | whole numbers from 0 | {passes} |" in lines
    assert any(line.startswith("| `method.step_size` | — | | | ") for line in lines)
    _, out, _ = run("methods", "--markdown")
    assert "\n| [ops](ops.md) | OPS: one-pixel shortcut | images | needed | no | no | " in out


def test_a_table_for_people(run):
    code, out, _ = run("settings", "ar")
    assert code == 0
    assert "method.response" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["pill"], "unknown method 'pill': did you mean 'pil'?"),
        (["pil", "--preset", "tiny"], "unknown preset 'tiny'"),
        (["pil", "--preset", "small", "--markdown"], "--preset with --markdown"),
        (["pil", "--json", "--markdown"], "not allowed with argument"),
    ],
)
def test_what_is_wrong_is_said(run, words, message):
    code, _, err = run("settings", *words)
    assert code == 2
    assert message in err
