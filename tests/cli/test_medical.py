"""DICOM from the command line: crafted, published, evaluated, and no patient in anything that is written of it."""

from __future__ import annotations

import csv
import json
from datetime import datetime

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
    private = [*(store / "run").rglob("*.csv"), store / "run" / "config.yaml"]
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


def series(root, splits=("train", "test"), **tags):
    """Two classes of one image a patient in each split."""
    for split in splits:
        for label in ("sick", "well"):
            pixels = noise(20, 24, low=300, high=700, dtype=np.int16, seed=len(label))
            place = root / split / label / "x.dcm"
            write_dicom(place, pixels, patient=f"KH-47-{label}", WindowCenter=400, WindowWidth=800, **tags)
    return root


@pytest.fixture
def crafted(run, tmp_path):
    """Craft on a series with these tags."""

    def craft(**tags):
        data = series(tmp_path / "data", **tags)
        done(run("craft", "classwise", "--data", data, "--out", tmp_path / "store", *SETTINGS))
        return tmp_path / "store", data

    return craft


@pytest.mark.parametrize(
    ("name", "said"), [("BurnedInAnnotation", "text is burnt into"), ("RecognizableVisualFeatures", "a face")]
)
def test_files_that_show_the_patient_are_counted_and_refused_if_asked(run, crafted, tmp_path, name, said):
    store, data = crafted(**{name: "YES"})
    code, _, err = run("export", store, "--data", data, "--out", tmp_path / "copy", "--strict")
    assert code == 1
    assert f"4 file(s) say that {said}" in err
    assert not (tmp_path / "copy").exists()
    for policy in ("basic-deidentify", "minimal", "keep"):
        told = done(run("export", store, "--data", data, "--out", tmp_path / policy, "--dicom-tags", policy))
        assert f"4 file(s) say that {said}" in told
        for path in (tmp_path / policy).rglob("*.dcm"):
            dataset = pydicom.dcmread(path)
            assert dataset[name].value == "YES"
            assert dataset.get("PatientIdentityRemoved") == (None if policy == "keep" else "NO")
    assert "file(s) say that" in done(
        run("export", store, "--data", data, "--out", tmp_path / "npz", "--format", "npz")
    )
    told = done(run("inspect", tmp_path / "minimal"))
    assert f"4 file(s) say that {said}" in told


def test_what_becomes_of_copied_files_is_said(run, crafted, tmp_path):
    store, data = crafted()
    for policy, said in (
        ("keep", "pixels as they were, tags by the policy keep"),
        ("minimal", "pixels as they were, tags and names by the policy minimal"),
    ):
        told = done(run("export", store, "--data", data, "--out", tmp_path / policy, "--dicom-tags", policy))
        assert f"The 2 samples of split 'test' were copied, {said}" in told
        assert "unchanged" not in told


def test_dates_are_shifted_alike_for_a_patient_in_every_split_and_export(run, crafted, tmp_path):
    store, data = crafted(SeriesDate="20240301", AcquisitionDateTime="20240229235900", StudyTime="101112")
    before = {path.relative_to(data).parent: pydicom.dcmread(path) for path in data.rglob("*.dcm")}
    shifts = set()
    for name in ("one", "two"):
        told = done(run("export", store, "--data", data, "--out", tmp_path / name, "--shift-dates"))
        assert not any(word in told for word in ("KH-47", NAME))
        for path in (tmp_path / name).rglob("*.dcm"):
            place = path.relative_to(tmp_path / name).parent
            old, new = before[place], pydicom.dcmread(path)
            days = {
                day(old.SeriesDate) - day(new.SeriesDate),
                day(old.StudyDate) - day(new.StudyDate),
                day(old.AcquisitionDateTime[:8]) - day(new.AcquisitionDateTime[:8]),
            }
            assert len(days) == 1
            shifts.add((place.name, *days))
            assert (new.StudyTime, new.PatientBirthDate) == ("101112", "")
            assert new.LongitudinalTemporalInformationModified == "MODIFIED"
            codes = [code.CodeValue for code in new.DeidentificationMethodCodeSequence]
            assert codes == ["113100", "113107"]
    # One shift a patient, the same in both splits and both exports.
    assert len(shifts) == 2
    assert all(0 < shift.days <= 3652 for _, shift in shifts)
    kept = json.loads((store / "run" / "date-shifts.json").read_text())
    assert sorted(kept.values()) == sorted(shift.days for _, shift in shifts)
    assert (store / "run" / "date-shifts.json").stat().st_mode & 0o077 == 0


def day(text):
    return datetime.strptime(text, "%Y%m%d").date()


@pytest.mark.parametrize("words", [["--dicom-tags", "keep"], ["--dicom-tags", "minimal"], ["--format", "npz"]])
def test_dates_are_shifted_by_the_basic_profile_alone(run, crafted, tmp_path, words):
    store, data = crafted()
    code, _, err = run("export", store, "--data", data, "--out", tmp_path / "copy", "--shift-dates", *words)
    assert code == 2
    assert "--shift-dates is for DICOM files and --dicom-tags basic-deidentify" in err
    assert not (tmp_path / "copy").exists()


def test_damaged_shifts_are_refused(run, crafted, tmp_path):
    store, data = crafted()
    for text in ("{", '{"PatientID KH-47-sick": 0}', '{"PatientID KH-47-sick": "7"}', "[1]"):
        (store / "run" / "date-shifts.json").write_text(text)
        code, _, err = run("export", store, "--data", data, "--out", tmp_path / "copy", "--shift-dates")
        assert (code, "date-shifts.json" in err, "KH-47" in err) == (1, True, False)
