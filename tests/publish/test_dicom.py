"""DICOM round trip: budget kept in stored grey levels, tags as the policy says, and nothing left of the patient."""

from __future__ import annotations

import importlib.util
import math
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicoms import BIRTH, NAME, PLACE, item, noise, write_dicom
from pydicom.data import get_testdata_file
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from slowly import slow_but

from hpcule.config.errors import UsageError
from hpcule.data.sources.dicom import DicomSource, is_dicom
from hpcule.data.sources.dicom_file import reading
from hpcule.publish.carry import publishing
from hpcule.publish.deidentify import POLICIES
from hpcule.publish.export import export
from hpcule.store.read import StoreReader
from hpcule.store.vault import Vault

EPSILON = 8
SMALL = 20_000
"""Bytes of the sample files that are tried by default."""
ICON = noise(4, 4, low=77, high=77)
SECRETS = (NAME, "Mustermann", BIRTH, PLACE, "KH-4711", "Zufallsbefund")
GREY = {"WindowCenter": 40, "WindowWidth": 400, "RescaleSlope": 2, "RescaleIntercept": -1024}


def collection(root: Path) -> Path:
    """Three images of a study that name one another, a film, a colour image; and an image for testing."""
    first = write_dicom(
        root / "train" / "sick" / "mustermann" / "ct.dcm",
        noise(30, 24, low=300, high=700, dtype=np.int16),
        PixelPaddingValue=310,
        StudyDescription="Zufallsbefund",
        IconImageSequence=item(Rows=4, Columns=4, BitsAllocated=8, PixelData=ICON.tobytes()),
        RequestAttributesSequence=item(RequestedProcedureDescription="Zufallsbefund", RequestedProcedureID="KH-4711"),
        SmallestImagePixelValue=1,
        LargestImagePixelValue=2,
        **GREY,
    )
    block = first.private_block(0x0011, "Zufallsbefund", create=True)
    block.add_new(1, "LO", "KH-4711")
    first.save_as(root / "train" / "sick" / "mustermann" / "ct.dcm", enforce_file_format=True)
    pointer = item(ReferencedSOPClassUID=first.SOPClassUID, ReferencedSOPInstanceUID=first.SOPInstanceUID)
    same_study = {"StudyInstanceUID": first.StudyInstanceUID, "ReferencedImageSequence": pointer}
    dark = noise(20, 20, high=1023, dtype=np.uint16)
    write_dicom(root / "train" / "well" / "cr.dcm", dark, bits=10, stored_as="MONOCHROME1", **same_study)
    write_dicom(root / "train" / "well" / "film.dcm", noise(3, 9, 9, low=-5, high=99, dtype=np.int16), NumberOfFrames=3)
    write_dicom(root / "train" / "well" / "photo.dcm", noise(10, 12, 3), stored_as="YBR_FULL")
    write_dicom(root / "test" / "sick" / "other.dcm", noise(9, 9, high=99, dtype=np.int16), **same_study)
    return root


def published(folder: Path, make_store, data: Path, policy="basic-deidentify", **settings):
    """Publish a folder at 16 pixels: (source, store, copy, summary)."""
    source = DicomSource(data, "train", image_size=16)
    store, *_ = make_store(source, name=f"store-{folder.name}", working_size=16, applied_at="working", **settings)
    others = {"test": DicomSource(data, "test", image_size=16)}
    summary = export(Vault(store), source, folder, other_splits=others, dicom_tags=policy)
    return source, store, folder, summary


def pixels_of(path: Path):
    with reading(path):
        return pydicom.dcmread(path).pixel_array.astype(int)


@pytest.mark.parametrize("policy", POLICIES)
def test_stored_values_keep_the_budget(tmp_path, make_store, policy):
    data = collection(tmp_path / "data")
    _, _, copy, summary = published(tmp_path / "copy", make_store, data, policy)
    rows = {record.file: record for record in summary.records}
    film = pixels_of(data / "train/well/film.dcm")
    cr = pixels_of(data / "train/well/cr.dcm")
    bounds = {  # of a window the distance from black to white, in 255ths, in stored values
        "sick/mustermann/ct.dcm": math.floor(EPSILON * 399 / 255 / 2),
        "well/cr.dcm": math.floor(EPSILON * int(cr.max() - cr.min()) / 255),
        "well/film.dcm": math.floor(EPSILON * int(film.max() - film.min()) / 255),
        "well/photo.dcm": EPSILON,
    }
    assert bounds["sick/mustermann/ct.dcm"] == 6
    for file, bound in bounds.items():
        before, after = pixels_of(data / "train" / file), pixels_of(copy / "train" / rows[file].published)
        largest = 0
        for old, new in zip(before.ravel().tolist(), after.ravel().tolist(), strict=True):
            assert abs(new - old) <= bound
            largest = max(largest, abs(new - old))
        assert bound // 2 < largest
        assert int(rows[file].numbers["stored_budget"]) == bound
        assert int(rows[file].numbers["largest_stored_change"]) == largest
    before = pixels_of(data / "train/sick/mustermann/ct.dcm")
    after = pixels_of(copy / "train" / rows["sick/mustermann/ct.dcm"].published)
    assert np.array_equal(before == 310, after == 310)
    assert (before == 310).any()
    assert rows["well/photo.dcm"].note == "YBR_FULL became RGB"
    assert rows["well/film.dcm"].numbers["frames"] == "3"
    assert np.array_equal(
        pixels_of(data / "test/sick/other.dcm"), pixels_of(copy / "test" / rows["sick/other.dcm"].published)
    )
    assert not rows["sick/other.dcm"].protected


def test_a_budget_in_stored_values(tmp_path, make_store):
    data = collection(tmp_path / "data")
    config = {"method": {"epsilon": EPSILON}, "budget_unit": "stored", "image_size": 16}
    _, _, _, summary = published(tmp_path / "copy", make_store, data, config=config)
    assert (
        max(int(record.numbers["largest_stored_change"]) for record in summary.records if record.protected) == EPSILON
    )


@pytest.mark.parametrize("policy", POLICIES)
def test_victims_see_what_is_published(tmp_path, make_store, policy):
    data = collection(tmp_path / "data")
    source, store, copy, _ = published(tmp_path / "copy", make_store, data, policy)
    again = DicomSource(copy, "train", image_size=16)
    ids = np.arange(len(source))
    with StoreReader(Vault(store)) as reader:
        seen = publishing(reader, source)(ids, source.read(ids))
    assert np.array_equal(seen, again.read(ids))
    assert (seen != source.read(ids)).any((1, 2, 3)).all()
    assert np.array_equal(source.labels, again.labels)


@pytest.mark.parametrize("policy", ["basic-deidentify", "minimal"])
def test_nothing_tells_of_the_patient(tmp_path, make_store, policy):
    data = collection(tmp_path / "data")
    old = {str(e.value) for p in data.rglob("*.dcm") for e in pydicom.dcmread(p) if e.VR == "UI"}
    source, store, copy, _ = published(tmp_path / "copy", make_store, data, policy)
    names = sorted(str(path.relative_to(copy)) for path in copy.rglob("*.dcm"))
    assert names == [
        *("test/sick/000000.dcm", "train/sick/000000.dcm"),
        *(f"train/well/00000{k}.dcm" for k in (1, 2, 3)),
    ]
    for name in names:
        raw, dataset = (copy / name).read_bytes(), pydicom.dcmread(copy / name)
        for secret in (*SECRETS, *(uid for uid in old if not uid.startswith("1.2.840.10008."))):
            assert secret.encode() not in raw, (name, secret)
        assert ICON.tobytes() not in raw
        # A film of the policy minimal has to say whether text is burnt in, and nobody looked.
        film = policy == "minimal" and "NumberOfFrames" in dataset
        assert dataset.get("BurnedInAnnotation") == ("YES" if film else None)
        assert dataset.PatientIdentityRemoved == ("NO" if film else "YES")
        codes = [code.CodeValue for code in dataset.get("DeidentificationMethodCodeSequence", [])]
        assert codes == ([] if film else ["113100"])
        assert not any(element.tag.is_private for element in dataset)
    # The manifest is what others may come to see of a store; its record of files is not.
    for path in store.rglob("*"):
        if path.is_file():
            assert not any(secret.encode() in path.read_bytes() for secret in (*SECRETS, "ct.dcm", "film"))
    assert source.name == "dicom"


def test_the_basic_profile_keeps_what_is_not_of_the_patient(tmp_path, make_store):
    data = collection(tmp_path / "data")
    _, _, copy, _ = published(tmp_path / "copy", make_store, data)
    ct, cr = (pydicom.dcmread(copy / "train" / name) for name in ("sick/000000.dcm", "well/000001.dcm"))
    assert (ct.BodyPartExamined, ct.InstanceNumber, ct.PatientName, ct.PatientID) == ("CHEST", 7, "", "REMOVED")
    assert (ct.StudyDate, ct.ContentDate) == ("", "19000101")
    assert ct.StudyInstanceUID == cr.StudyInstanceUID
    assert ct.SeriesInstanceUID != cr.SeriesInstanceUID
    assert cr.ReferencedImageSequence[0].ReferencedSOPInstanceUID == ct.SOPInstanceUID
    other = pydicom.dcmread(copy / "test" / "sick" / "000000.dcm")
    assert other.ReferencedImageSequence[0].ReferencedSOPInstanceUID == ct.SOPInstanceUID


def test_keep_keeps_all_but_pixels_and_uids(tmp_path, make_store):
    data = collection(tmp_path / "data")
    _, _, copy, _ = published(tmp_path / "copy", make_store, data, "keep")
    file = "train/sick/mustermann/ct.dcm"
    before, after = pydicom.dcmread(data / file), pydicom.dcmread(copy / file)
    changed = {e.keyword for e in before if e.tag not in after or after[e.tag].value != e.value}
    limits = {"SmallestImagePixelValue", "LargestImagePixelValue"}
    assert changed == {"SOPInstanceUID", "SeriesInstanceUID", "ImageType", "PixelData", "IconImageSequence", *limits}
    assert {e.keyword for e in after} - {e.keyword for e in before} == {"DerivationDescription"}
    assert after.SmallestImagePixelValue == after.pixel_array.min()
    assert after.LargestImagePixelValue == after.pixel_array.max()
    assert list(after.ImageType) == ["DERIVED", "PRIMARY", "AXIAL"]
    assert after.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert after.file_meta.MediaStorageSOPInstanceUID == after.SOPInstanceUID
    cr = pydicom.dcmread(copy / "train" / "well" / "cr.dcm")
    assert cr.ReferencedImageSequence[0].ReferencedSOPInstanceUID == after.SOPInstanceUID


@pytest.mark.parametrize("policy", slow_but(["basic-deidentify"], POLICIES))
@pytest.mark.parametrize(
    "file", ["examples_palette.dcm", "MR_small_bigendian.dcm", "examples_jpeg2k.dcm", "CT_small.dcm"]
)
def test_other_splits_look_the_same(tmp_path, make_store, policy, file):
    data = collection(tmp_path / "data")
    shutil.copy(get_testdata_file(file, download=False), data / "test" / "sick" / "other.dcm")
    _, _, copy, _ = published(tmp_path / "copy", make_store, data, policy)
    before, after = (DicomSource(folder, "test") for folder in (data, copy))
    assert np.array_equal(before.read(np.array([0])), after.read(np.array([0])))
    dataset = pydicom.dcmread(copy / "test" / after.files[0])
    if policy != "keep":
        assert "DerivationDescription" not in dataset
        assert not dataset.PatientName


def test_a_window_too_narrow_for_the_budget_is_said(tmp_path, make_store):
    narrow = {"WindowCenter": 9, "WindowWidth": 20}
    for name, window in (("a.dcm", narrow), ("b.dcm", GREY)):
        write_dicom(tmp_path / "data" / "train" / name, noise(8, 8, dtype=np.int16), **window)
        write_dicom(tmp_path / "data" / "test" / name, noise(8, 8, dtype=np.int16), **window)
    _, _, _, summary = published(tmp_path / "copy", make_store, tmp_path / "data", shards=1)
    record = next(record for record in summary.records if record.file == "a.dcm")
    assert not record.protected
    assert "less than one stored level" in record.note
    assert record.numbers["largest_stored_change"] == "0"


@pytest.mark.parametrize(("format", "settings"), [("folder", {}), ("dicom", {"norm": "l2"})])
def test_what_cannot_be_kept_is_refused(tmp_path, make_store, format, settings):
    data = collection(tmp_path / "data")
    source = DicomSource(data, "train", image_size=16)
    store, *_ = make_store(source, working_size=16, applied_at="working", **settings)
    with pytest.raises(UsageError, match="npz or hdf5"):
        export(Vault(store), source, tmp_path / "copy", format=format)
    assert not (tmp_path / "copy").exists()


UNLIKE = ("emri", "image_dfl", "eCT_Supplemental")
"""Of enhanced MR, derived images may not say how they were measured, which is kept; dciodvfy does not inflate; a
palette that an image displayed in colours requires is among the binary values that the profile does not keep."""


def samples(folder: Path, most: int) -> Path:
    """The sample files of pydicom, and of pydicom-data where that is installed, of up to so many bytes."""
    paths = [path for path in (Path(pydicom.__file__).parent / "data" / "test_files").rglob("*") if path.is_file()]
    if spec := importlib.util.find_spec("data_store"):
        paths += (Path(spec.origin).parent / "data").iterdir()
    for number, path in enumerate(sorted(path for path in paths if is_dicom(path))):
        if path.stat().st_size <= most:
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, folder / f"{number:03d}-{path.name}")
    return folder


def errors_of(path: Path) -> set[str]:
    """What dciodvfy finds wrong, without the UIDs that it quotes."""
    found = subprocess.run(["dciodvfy", path], capture_output=True, text=True, errors="replace")
    lines = (found.stdout + found.stderr).splitlines()
    return {line.partition("<2.25")[0].partition("<1.")[0] for line in lines if line.startswith("Error")}


@pytest.mark.parametrize(
    ("policy", "most"),
    slow_but([("basic-deidentify", SMALL)], [*((policy, SMALL) for policy in POLICIES), ("basic-deidentify", 1 << 30)]),
)
def test_all_sample_files_come_back_valid(tmp_path, make_store, policy, most):
    data = samples(tmp_path / "data", most)
    source = DicomSource(data, "all", image_size=16, skip_unreadable=True)
    assert len(source.files) > 30
    store, *_ = make_store(source, working_size=16, applied_at="working")
    summary = export(Vault(store), source, tmp_path / "copy", dicom_tags=policy)
    again = DicomSource(tmp_path / "copy", "all", image_size=16)
    assert again.frames.tolist() == source.frames.tolist()
    for number, record in enumerate(summary.records):
        path = tmp_path / "copy" / record.published
        with reading(path):
            dataset = pydicom.dcmread(path)
            assert dataset.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
            assert dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID
            revealing = dataset.get("BurnedInAnnotation") == "YES"
            assert policy == "keep" or dataset.PatientIdentityRemoved == ("NO" if revealing else "YES")
            assert "IconImageSequence" not in dataset
        # Behind the images stand segmentations, which are copied.
        for sample in source.of_file(number) if number < len(source.files) else ():
            before, after = source.native(sample), again.native(sample)
            change = np.abs(after.pixels.astype(int) - before.pixels)
            assert change.max() <= math.floor(EPSILON * abs(before.grid.unit) + 1e-9)
            assert before.grid.table.tobytes() == after.grid.table.tobytes()
        if shutil.which("dcm2pnm"):
            shown = subprocess.run(["dcm2pnm", path, tmp_path / "shown.pnm"], capture_output=True, text=True)
            assert shown.returncode == 0, (record.file, shown.stderr)
        if shutil.which("dciodvfy") and policy != "minimal" and not any(name in record.file for name in UNLIKE):
            fresh = errors_of(path) - errors_of(data / record.file)
            assert not fresh, (record.file, fresh)


def test_uids_are_new_and_random():
    from hpcule.publish.deidentify import NewUids

    one, other, old = NewUids(), NewUids(), generate_uid()
    assert one.renew(old) == one.renew(old) != other.renew(old)
    assert old in one
