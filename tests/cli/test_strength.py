"""Budgets by name, on the command line."""

import pytest
import yaml


def crafted(run, store, *words):
    code, _, err = run("craft", "classwise", "--data", "digits", "--out", store, *words)
    assert code == 0, err
    return yaml.safe_load((store / "run" / "config.yaml").read_text())["method"]["epsilon"]


@pytest.mark.parametrize(
    ("words", "epsilon"),
    [
        (["--strength", "subtle"], 4),
        (["--strength", "strong", "--set", "method.epsilon=5"], 5),
    ],
)
def test_the_configuration_holds_the_number(run, tmp_path, words, epsilon):
    assert crafted(run, tmp_path / "store", *words) == epsilon


def test_a_strength_beats_the_file(run, tmp_path):
    file = tmp_path / "craft.yaml"
    file.write_text("method: {epsilon: 3, size: 4}\nimage_size: 16\n")
    assert crafted(run, tmp_path / "store", "--config", file, "--strength", "strong") == 16


def test_a_method_without_epsilon_is_named(run, tmp_path):
    code, _, err = run("craft", "ops", "--data", "digits", "--out", tmp_path / "store", "--strength", "strong")
    assert code == 2
    assert "ops has no epsilon" in err
    assert not (tmp_path / "store").exists()
