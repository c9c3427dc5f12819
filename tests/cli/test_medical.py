"""DICOM from the command line: crafted, published, evaluated, and no patient in anything that is written of it."""

from __future__ import annotations

import csv
import json

import numpy as np
import pydicom
import pytest
from dicoms import BIRTH, NAME, PLACE, noise, write_dicom

SECRETS = [text.encode() for text in (NAME, "mustermann", BIRTH, PLACE, "KH-47", "klinik-akte")]
SETTINGS = ["--set", "image_size=16", "--set", "skip_unreadable=true", "--set", "world.threads=1"]


@pytest.fixture
def clinic(tmp_path):
    """Two classes of images, and files that cannot be protected, called after a patient."""
    root = tmp_path / "klinik-akte"
    for split, count in (("train", 6), ("test", 4)):
        for label, mean in (("sick", 300), ("well", 500)):
            for number in range(count):
                pixels = noise(20, 24, low=mean - 200, high=mean + 200, dtype=np.int16, seed=number)
                place = root / split / label / f"mustermann-{number}" / "series" / f"{number}.dcm"
                write_dicom(place, pixels, patient=f"KH-47{number}", WindowCenter=400, WindowWidth=800)
    whole = (root / "train" / "sick" / "mustermann-0" / "series" / "0.dcm").read_bytes()
    for split in ("train", "test"):
        (root / split / "sick" / "mustermann-cut.dcm").write_bytes(whole[:-100])
    return root


def done(result):
    code, out, err = result
    assert code == 0, err
    return out + err


def test_a_clinic_publishes(run, clinic, tmp_path):
    store, copy, report = tmp_path / "store", tmp_path / "copy", tmp_path / "report"
    said = done(run("craft", "pil", "--preset", "smoke", "--data", clinic, "--out", store, *SETTINGS))
    said += done(run("verify", store))
    exported = done(run("export", store, "--data", clinic, "--out", copy))
    assert "Wrote 12 protected samples" in exported
    quick = ["--suite", "quick", "--set", "recipes=[plain]", "--set", "victim.epochs=1", "--set", "world.threads=1"]
    assert "protected" in done(run("evaluate", store, "--data", clinic, "--out", report, *quick))
    rows = list(csv.DictReader((store / "run" / "export.csv").read_text().splitlines()))
    assert [row["published"] for row in rows[:2]] == ["sick/000000.dcm", "sick/000001.dcm"]
    left_out = [row for row in rows if not row["published"]]
    assert [(row["file"], row["protected"]) for row in left_out] == [("sick/mustermann-cut.dcm", "no")] * 2
    assert len(list(copy.rglob("*.dcm"))) == 20
    assert all(pydicom.dcmread(path).PatientIdentityRemoved == "YES" for path in copy.rglob("*.dcm"))
    private = [store / "run" / "export.csv", store / "run" / "config.yaml"]
    written = [path for folder in (store, copy, report) for path in folder.rglob("*") if path.is_file()]
    for path in written:
        if path not in private:
            assert not [secret for secret in SECRETS if secret in path.read_bytes()], path
    assert json.loads((store / "manifest.json").read_text())["source"]["name"] == "dicom"
    assert b"klinik-akte" not in said.encode()


def test_a_file_that_cannot_be_decoded_is_an_error_unless_it_is_left_out(run, clinic, tmp_path):
    store = tmp_path / "store"
    code, _, said = run("craft", "pil", "--preset", "smoke", "--data", clinic, "--out", store, *SETTINGS[:2])
    assert code == 1
    assert "mustermann-cut.dcm cannot be read as a DICOM image" in said
    for path in store.rglob("*"):
        assert path.name == "config.yaml" or path.is_dir() or b"mustermann" not in path.read_bytes(), path


@pytest.mark.parametrize("method", ["lsp", "ops", "em-ops"])
def test_what_could_not_be_published_is_not_crafted(run, clinic, tmp_path, method):
    code, _, said = run("craft", method, "--data", clinic, "--out", tmp_path / "store", *SETTINGS)
    assert code == 2
    assert f"{method} has a budget of whole images" in said
    assert "cannot be published as dicom" in said
    assert not (tmp_path / "store").exists()


def test_keep_keeps_names(run, clinic, tmp_path):
    store, copy = tmp_path / "store", tmp_path / "copy"
    done(run("craft", "pil", "--preset", "smoke", "--data", clinic, "--out", store, *SETTINGS))
    done(run("export", store, "--data", clinic, "--out", copy, "--dicom-tags", "keep"))
    names = {path.relative_to(clinic) for path in clinic.rglob("*.dcm")}
    assert {path.relative_to(copy) for path in copy.rglob("*.dcm")} == {n for n in names if "cut" not in n.name}
