"""Every verb opens DATA with the same settings, and says which files it leaves out."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from PIL import Image

from hpcule.cli import recommend
from hpcule.data.opening import Opening
from hpcule.store.manifest import read_manifest
from hpcule.store.vault import Vault

SETTINGS = {"image_size": 16, "skip_unreadable": "true", "exclude": '["*_mask.png"]'}
VICTIM = ["victim.network=convnet", "victim.epochs=1", "victim.batch=8", "world.threads=1"]
SAID = "files left out: ", "cannot be decoded (", "a/00.png", "1 excluded: b/00_mask.png"


def words(*settings):
    return [word for setting in settings for word in ("--set", setting)]


OPENING = words(*(f"{name}={value}" for name, value in SETTINGS.items()))


@pytest.fixture
def folder(tmp_path):
    """24 training and 12 test images of two classes and of different sizes; two are damaged, and one is a mask."""
    rng = np.random.default_rng(5)
    for number in range(36):
        split, name = ("train" if number < 24 else "test"), f"{number:02}.png"
        path = tmp_path / "pictures" / split / "ab"[number % 2] / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20 + number % 3, 24, 3), dtype=np.uint8)).save(path)
    for name in ("a/00.png", "a/02.png"):
        os.truncate(tmp_path / "pictures" / "train" / name, 300)
    Image.new("RGB", (24, 20)).save(tmp_path / "pictures" / "train" / "b" / "00_mask.png")
    return tmp_path / "pictures"


@pytest.fixture
def store(run, folder, tmp_path):
    code, _, err = run("craft", "classwise", "--data", folder, "--out", tmp_path / "store", *OPENING)
    assert code == 0, err
    assert all(part in err for part in SAID), err
    return tmp_path / "store"


def test_a_store_keeps_how_its_data_were_opened(store, folder):
    manifest = read_manifest(Vault(store))
    assert manifest.opening == Opening(image_size=16, skip_unreadable=True, exclude=("*_mask.png",))
    assert (manifest.n, manifest.sample_shape) == (22, (3, 16, 16))
    assert len(manifest.opening.test(str(folder), None)) == 12


VERBS_OF_A_STORE = {
    "verify": ["--data", "DATA"],
    "export": ["--data", "DATA", "--out", "OUT"],
    "evaluate": ["--data", "DATA", "--out", "OUT", *words("recipes=[plain]", "seeds=[0]", *VICTIM)],
    "compare": ["--data", "DATA", "--out", "OUT", *words("recipes=[plain]", "seeds=[0]", *VICTIM)],
    "train": ["--data", "DATA", "--out", "OUT", *words(*VICTIM)],
}


@pytest.mark.parametrize("verb", VERBS_OF_A_STORE)
def test_a_verb_opens_data_as_the_store_says(run, store, folder, tmp_path, verb):
    line = [{"DATA": folder, "OUT": tmp_path / "out"}.get(word, word) for word in VERBS_OF_A_STORE[verb]]
    code, _, err = run(verb, *(["--store", store] if verb == "train" else [store]), *line)
    assert code == 0, err
    assert all(part in err for part in SAID), err


def test_the_copy_lists_what_it_leaves_out(run, store, folder, tmp_path):
    assert run("export", store, "--data", folder, "--out", tmp_path / "copy")[0] == 0
    assert len(list((tmp_path / "copy" / "train").rglob("*.png"))) == 23
    record = (store / "run" / "export.csv").read_text()
    assert "train,b/00_mask.png,b/00_mask.png,no,excluded: copied without a perturbation" in record
    assert "train,a/00.png,,no,cannot be decoded: left out" in record


@pytest.mark.parametrize("verb", ["train", "recommend"])
def test_a_verb_takes_the_settings_of_an_opening(run, folder, tmp_path, verb):
    line = [verb, "--data", folder, "--out", tmp_path / "out", *words(*VICTIM)]
    if verb == "recommend":
        line += ["--budget", "5", *words("methods=[classwise]", "recipes=[plain]", "samples=20")]
    code, _, err = run(*line)
    assert (code, "different sizes" in err or "cannot be decoded" in err) == (1, True), err
    assert "--set skip_unreadable=true" in err or "--set image_size=N" in err
    code, _, err = run(*line, *OPENING)
    assert code == 0, err
    assert all(part in err for part in SAID), err
    if verb == "recommend":
        manifest = read_manifest(Vault(tmp_path / "out" / "stores" / "classwise-16"))
        assert manifest.n == 20
        assert manifest.opening == Opening(image_size=16, skip_unreadable=True, exclude=("*_mask.png",), subset=20)
        code, _, err = run("verify", tmp_path / "out" / "stores" / "classwise-16", "--data", folder)
        assert code == 0, err


def test_recommend_gives_images_of_many_sizes_one_size(run, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(recommend, "COMMON_SIZE", 20)
    line = ["recommend", "--data", folder, "--out", tmp_path / "out", "--budget", "5", *words(*VICTIM)]
    line += words(
        "methods=[classwise]", "recipes=[plain]", "samples=20", "skip_unreadable=true", "exclude=['*_mask.png']"
    )
    code, _, err = run(*line)
    assert code == 0, err
    assert "tried at 20 x 20 pixels; --set image_size=N changes that" in err
    manifest = read_manifest(Vault(tmp_path / "out" / "stores" / "classwise-16"))
    assert manifest.opening.image_size == 20


def test_a_study_leaves_out_what_its_crafts_leave_out(run, folder, tmp_path):
    study = tmp_path / "study.yaml"
    text = f"name: a\ndata: {folder}\nmethod: classwise\nseeds: [0]\nsubset: 20\n"
    text += "victim: {network: convnet, epochs: 1, batch: 8}\nworld: {threads: 1}\n"
    study.write_text(text + "craft: {image_size: 16, exclude: ['*_mask.png']}\n")
    code, _, err = run("study", "run", study, "--out", tmp_path / "out")
    assert code == 1
    assert "a/00.png cannot be decoded" in err
    assert "with craft: {skip_unreadable: true} in the study's file" in err
    study.write_text(text + "craft: {image_size: 16, exclude: ['*_mask.png'], skip_unreadable: true}\n")
    code, _, err = run("study", "run", study, "--out", tmp_path / "whole")
    assert code == 0, err
    assert all(part in err for part in SAID), err
    (store,) = (tmp_path / "whole" / "crafts").iterdir()
    opening = Opening(image_size=16, skip_unreadable=True, exclude=("*_mask.png",), subset=20)
    assert read_manifest(Vault(store)).opening == opening
    assert run("verify", store, "--data", folder)[0] == 0


def test_settings_that_contradict_the_store_are_refused(run, store, folder, tmp_path):
    line = ["train", "--data", folder, "--store", store, "--out", tmp_path / "out", *words(*VICTIM)]
    code, _, err = run(*line, *words("image_size=32"))
    assert code == 2
    assert "image_size=32: the store was crafted with 16" in err


def test_a_store_says_where_its_setting_is_given(run, folder, tmp_path, store):
    small = tmp_path / "small.npz"
    rng = np.random.default_rng(0)
    np.savez(small, images=rng.integers(0, 256, (24, 16, 16, 3), dtype=np.uint8), labels=np.arange(24) % 2)
    assert run("craft", "classwise", "--data", small, "--out", tmp_path / "plain")[0] == 0
    larger = tmp_path / "larger.npz"
    np.savez(larger, images=rng.integers(0, 256, (24, 18, 18, 3), dtype=np.uint8), labels=np.arange(24) % 2)
    code, _, err = run("evaluate", tmp_path / "plain", "--data", small, "--test", larger, "--out", tmp_path / "out")
    assert code == 1
    assert "give both one size with --set image_size=16 when the store is crafted" in err


@pytest.mark.parametrize("data", ["digits", "npz"])
def test_only_files_can_be_excluded(run, small_npz, tmp_path, data):
    data = small_npz if data == "npz" else data
    code, _, err = run("craft", "pil", "--data", data, "--out", tmp_path / "store", "--set", 'exclude=["*_mask.png"]')
    assert code == 2
    assert "has no files to exclude" in err


def test_a_copy_of_a_subset_says_so_and_has_whole_other_splits(run, tmp_path):
    store = tmp_path / "store"
    assert run("craft", "classwise", "--data", "digits", "--out", store, *words("subset=100"))[0] == 0
    code, out, err = run("export", store, "--data", "digits", "--out", tmp_path / "copy.npz")
    assert code == 0, err
    assert "1,337 sample(s) left out, as the store is of a subset" in err
    assert "The 360 samples of split 'test' were copied unchanged" in out
    copy = Opening().source(str(tmp_path / "copy.npz"))
    clean = Opening(subset=100).source("digits")
    assert copy.labels.tolist() == clean.labels.tolist()
    assert np.abs(copy.read(np.arange(100)).astype(int) - clean.read(np.arange(100))).max() <= 8


def test_an_unfinished_store_of_older_settings_says_what_to_do(run, store, folder):
    whole = json.loads((store / "manifest.json").read_text())
    config = {name: value for name, value in whole["config"].items() if name != "subset"}
    (store / "manifest.json").write_text(json.dumps({**whole, "config": config, "complete": False}))
    line = ["craft", "classwise", "--data", folder, "--out", store, "--resume", *OPENING]
    code, _, err = run(*line, *words(f"seed={whole['seed']}"))
    assert code == 1
    assert "whose settings differ in subset; finish it with that one" in err
