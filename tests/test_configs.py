"""Every ready configuration builds, and says what it is."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
from published_sets import WRITERS

from hpcule.cli.main import main
from hpcule.config.tree import build_config, load_yaml, merged, to_tree
from hpcule.craft.table import METHODS, configure, find
from hpcule.evaluation.suites import SUITES, EvaluateConfig
from hpcule.nets import AUDIO_NETS, NETS
from hpcule.study.config import StudyConfig
from hpcule.study.grid import StudySamples, expand
from hpcule.study.items import open_samples, samples_of
from hpcule.victim.config import VictimConfig
from hpcule.victim.single import TrainConfig
from hpcule.victim.training_schedule import USUAL_EPOCHS

ROOT = Path(__file__).parents[1]
CRAFT = sorted((ROOT / "configs" / "craft").glob("*.yaml"))
VICTIM = sorted((ROOT / "configs" / "victim").glob("*.yaml"))
STUDY = sorted((ROOT / "configs" / "study").glob("*.yaml"))


def named(path: Path) -> str:
    return path.stem


def test_none_is_elsewhere():
    assert sorted((ROOT / "configs").rglob("*.*")) == sorted(CRAFT + VICTIM + STUDY)


@pytest.mark.parametrize("path", CRAFT, ids=named)
def test_craft(path):
    method = max((name for name in METHODS if f"{path.stem}-".startswith(f"{name}-")), key=len)
    unit = "class" if "-class" in path.stem else None
    config = configure(method, "DATA", preset=None, file=load_yaml(path), overrides=[])

    assert config.preset == ("small" if path.stem.endswith("-small") else "paper")
    # What a file writes out are the preset's own values: it documents them, and must not drift away from them.
    overrides = [f"method.unit={unit}"] if unit else []
    if path.stem.endswith("-clip"):
        overrides = ["method.encoder=clip-resnet50"]
    if path.stem.endswith("-gpu"):
        overrides = ["world.device=cuda", "precision=bf16", f"method.ghost={config.method.batch}"]
    assert config != configure(method, "DATA", preset=config.preset, file={}, overrides=[]), "no more than a preset"
    assert config == configure(method, "DATA", preset=config.preset, file={}, overrides=overrides)
    assert find(method).unit(config.method) == {"uc": "cluster", "classwise": "class", "pue": "class"}.get(
        method, unit or "sample"
    )


@pytest.mark.parametrize("path", VICTIM, ids=named)
def test_victim(path):
    file = load_yaml(path)
    train = build_config(TrainConfig, file)
    for suite in SUITES.values():
        evaluate = build_config(EvaluateConfig, merged(suite, file))
        assert evaluate.victim == train.victim
    assert train.victim.network in (*NETS, *AUDIO_NETS)


@pytest.mark.parametrize("path", STUDY, ids=named)
def test_study(path):
    config = build_config(StudyConfig, load_yaml(path))
    grid = expand(config, {name: StudySamples(4708, training=name, test=name) for name in config.data_sets})
    factors = [config.variants or [None], *config.factors.values(), config.rates, config.recipes, config.seeds]
    assert len(grid.cells) == math.prod(map(len, factors))
    assert f"hpcule study run {path.relative_to(ROOT)} " in path.read_text()


def test_summits_study_on_small_copies_of_its_data(tmp_path, monkeypatch):
    """As published, but for sizes: batches, images and the subset are those of a few samples."""
    root = tmp_path / ".cache" / "hpcule" / "data"
    monkeypatch.setenv("HOME", str(tmp_path))
    for folder, write in WRITERS.values():
        write(root / folder)
    for name, classes in (("path", 9), ("blood", 8)):
        rows = {"train": 2 * classes, "test": classes}
        images = {f"{split}_images": np.zeros((n, 28, 28, 3), np.uint8) for split, n in rows.items()}
        labels = {f"{split}_labels": np.arange(n)[:, None] % classes for split, n in rows.items()}
        np.savez(root / f"{name}mnist.npz", **images, **labels)
    tree = load_yaml(ROOT / "configs/study/summit.yaml")
    tree["craft"]["image_size"], tree["rate_batch"] = 32, 3
    tree["factors"]["craft.method.batch"] = [1, 2, 3, 4]
    (path,) = [entry for entry in tree["factors"]["data"] if isinstance(entry, dict)]
    path["subset"] = 10
    tree["victim"] |= {"workers": 1, "batch": 2}
    config = build_config(StudyConfig, tree)
    samples, classes = {}, {}
    for name in config.data_sets:
        source, test = open_samples(config.on(name))
        samples[name], classes[name] = samples_of(source, test), source.class_count
    grid = expand(config, samples)
    assert len(grid.cells) == math.prod(map(len, (samples, config.variants, [1, 2, 3, 4], config.rates, config.seeds)))
    assert {name: found.n for name, found in samples.items()} == {
        "oxford-pets": 9,
        "medmnist:path": 10,
        "medmnist:blood": 16,
        "flowers-17": 5,
        "flowers-102": 4,
    }
    assert classes == {
        "oxford-pets": 3,
        "medmnist:path": 9,
        "medmnist:blood": 8,
        "flowers-17": 3,
        "flowers-102": 4,
    }
    encoders = {
        (grid.crafts[cell.crafts[0]].data, grid.crafts[cell.crafts[0]].config.method.encoder) for cell in grid.cells
    }
    assert encoders == {(name, encoder) for name in samples for encoder in ("resnet50", "clip-resnet50")}
    for cell in grid.cells:
        assert set(cell.victims) == {"clean", "noise", "untrained", "protected"}
        assert {grid.victims[key].data for key in cell.victims.values()} == {cell.factors["data"]}


def test_small_victim_is_the_default():
    usual = TrainConfig(victim=VictimConfig(epochs=USUAL_EPOCHS))
    assert build_config(TrainConfig, load_yaml(ROOT / "configs/victim/small.yaml")) == usual


@pytest.mark.parametrize("path", CRAFT + VICTIM, ids=named)
def test_the_command_in_its_comment_names_the_file(path):
    commands = re.findall(r"^#   hpcule .*--config (\S+)$", path.read_text(), re.MULTILINE)
    assert commands
    assert {ROOT / command for command in commands} == {path}


def test_a_craft_run_reads_its_file(tmp_path, capsys):
    store = tmp_path / "store"
    arguments = ["craft", "em", "--data", "digits", "--out", str(store), "--json"]
    short = ["method.surrogate=convnet", "method.model_steps=1", "method.max_rounds=1", "method.subset=0.1"]
    overrides = [word for setting in short for word in ("--set", setting)]
    assert main([*arguments, "--config", str(ROOT / "configs/craft/em-class-small.yaml"), *overrides]) == 0
    written = load_yaml(store / "run" / "config.yaml")
    expected = configure("em", "digits", preset="small", file={}, overrides=[*short, "method.unit=class"])
    assert written["method"] == to_tree(expected.method)
    assert '"reduced": true' in capsys.readouterr().out
