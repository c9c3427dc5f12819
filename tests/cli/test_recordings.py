"""The main job on recordings: craft, verify, evaluate, export, train."""

import json
import subprocess
import sys

import numpy as np
import pytest

from hpcule.data.opening import Opening
from hpcule.store.read import StoreReader
from hpcule.store.vault import Vault

TINY = ["--set", "victim.epochs=2", "--set", "victim.batch=32", "--set", "world.threads=1"]
PATCH = ["--set", "method.region=600", "--set", "seed=1"]


@pytest.fixture(scope="module")
def store(small_wavs, tmp_path_factory):
    """Made in a process of its own: a run leaves threads and signal handlers, which are put back test by test only."""
    path = tmp_path_factory.mktemp("recordings") / "store"
    words = ["craft", "poscuda", "--data", str(small_wavs), "--out", str(path), *PATCH]
    subprocess.run([sys.executable, "-m", "hpcule", *words], check=True, capture_output=True, timeout=300)
    return path


@pytest.mark.slow
def test_evaluate_tells_how_far_recordings_are_and_shows_their_spectrograms(run, small_wavs, store, tmp_path):
    code, out, errors = run(
        "evaluate", store, "--data", small_wavs, "--suite", "quick", "--out", tmp_path / "report", *TINY
    )
    assert code == 0, errors
    assert "Audibility over 131 recordings: SNR " in out
    assert "clean test recordings" in out
    results = json.loads((tmp_path / "report" / "results.json").read_text())
    assert "visibility" not in results
    assert results["audibility"]["n"] == 131
    assert 0 < results["audibility"]["snr_db"] < 60
    assert results["data"]["rate"] == 8000
    recipe = results["recipes"][0]
    assert (recipe["settings"]["network"], recipe["settings"]["optimizer"]) == ("mel-cnn", "adam")
    assert "seed" not in results["protection"]["settings"]
    page = (tmp_path / "report" / "report.html").read_text()
    for text in ("<h2>Audibility</h2>", "Log-mel spectrograms", "Log-spectral distance", "change on listeners"):
        assert text in page
    for text in ("PSNR", "SSIM", "pixels is shown", "clean test images"):
        assert text not in page


def test_crops_and_networks_for_images_are_refused(run, small_wavs, store, tmp_path):
    words = ["evaluate", store, "--data", small_wavs, "--suite", "quick", "--out", tmp_path / "report", *TINY]
    code, _, errors = run(*words, "--set", "recipes=[crop-flip]")
    assert (code, errors.count("\n")) == (2, 1)
    assert "recipes=['crop-flip'] are for images, " in errors
    code, _, errors = run(*words, "--set", "victim.network=resnet18")
    assert code == 2
    assert "network resnet18 is not for recordings; valid for them are wave-cnn" in errors
    assert not (tmp_path / "report").exists()


def test_train_learns_tones_with_an_audio_network_and_no_augmentation(run, small_wavs, store, tmp_path):
    words = ["train", "--data", small_wavs, "--out", tmp_path / "train", "--json", *TINY]
    code, _, errors = run(*words)
    assert code == 2
    assert "network resnet-small is not for recordings" in errors
    audio = ["--set", "victim.network=mel-gru", "--set", "victim.optimizer=adam", "--set", "victim.learning_rate=0.005"]
    code, _, errors = run(*words, *audio, "--set", "victim.countermeasures=[crop-flip]")
    assert code == 2
    assert "crop-flip: for images, and " in errors
    code, out, errors = run(*words, *audio, "--set", "victim.epochs=10")
    assert code == 0, errors
    assert json.loads(out)["last"] > 0.8
    code, out, errors = run(*words, *audio, "--store", store)
    assert code == 0, errors
    assert json.loads(out)["protected"]


def test_the_copy_is_what_the_store_says_and_tells_nothing_else(run, small_wavs, store, tmp_path):
    code, out, errors = run("export", store, "--data", small_wavs, "--out", tmp_path / "copy")
    assert code == 0, errors
    assert "131 protected samples" in out
    clean, copy = (Opening().source(str(folder)) for folder in (small_wavs, tmp_path / "copy"))
    ids = np.arange(131)
    published = StoreReader(Vault(store)).published(ids, clean.read(ids))
    np.testing.assert_array_equal(copy.read(ids), published)
    assert (published != clean.read(ids)).any(axis=(1, 2, 3)).all()
    tests = [Opening().source(str(folder), "test").read(np.arange(40)) for folder in (small_wavs, tmp_path / "copy")]
    np.testing.assert_array_equal(*tests)
    files = [path for path in (tmp_path / "copy").rglob("*") if path.is_file()]
    assert len(files) == 171
    assert {path.suffix for path in files} == {".wav"}


def test_clip_length_is_kept_with_the_store(run, small_wavs, tmp_path):
    words = ["craft", "poscuda", "--data", small_wavs, "--out", tmp_path / "store", "--set", "clip_length=500"]
    assert run(*words, *PATCH)[0] == 0
    assert run("verify", tmp_path / "store", "--data", small_wavs)[0] == 0
    assert run("export", tmp_path / "store", "--data", small_wavs, "--out", tmp_path / "copy")[0] == 0
    copy = Opening().source(str(tmp_path / "copy"))
    assert copy.shape == (1, 1, 500)
    assert set(copy.lengths(np.arange(131))) == {500}


def test_methods_for_images_are_refused(run, small_wavs, tmp_path):
    code, _, errors = run("craft", "pil", "--data", small_wavs, "--out", tmp_path / "store")
    assert code == 1
    assert errors.endswith("is audio: take poscuda\n")
    assert not (tmp_path / "store").exists()
