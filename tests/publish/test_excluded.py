"""Masks and label maps next to the samples are copied with the values that they have, and without their metadata."""

from __future__ import annotations

import wave

import nibabel
import numpy as np
import pydicom
import pytest
from dicoms import NAME, noise, write_dicom
from PIL import Image, PngImagePlugin

from hpcule.config.errors import StoreError
from hpcule.data.opening import Opening
from hpcule.publish.export import export
from hpcule.publish.readback import ReadBack
from hpcule.store.vault import Vault

SECRET = "Mustermann"


def published(tmp_path, make_store, *, image_size=8, **settings):
    """Export tmp_path/data, in which files called *_mask.* are no samples; the records of those."""
    sizes = {} if image_size is None else {"image_size": image_size}
    source = Opening(exclude=("*_mask.*",), **sizes).source(str(tmp_path / "data"))
    store, *_ = make_store(source, shards=1, **({"working_size": 8, "applied_at": "working"} if sizes else {}))
    summary = export(Vault(store), source, tmp_path / "copy", **settings)
    assert len([record for record in summary.records if record.protected]) == 2
    return [record for record in summary.records if not record.protected]


def folder_of_images(root):
    for label in "ab":
        (root / label).mkdir(parents=True)
        Image.fromarray(noise(20, 20, 3)).save(root / label / "1.png")


def masks():
    """Images of several modes: class numbers in a palette, in 16 bits, in one bit, in colours."""
    numbers = np.arange(400, dtype=np.uint8).reshape(20, 20) % 4
    palette = Image.fromarray(numbers, "L").convert("P")
    palette.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0])
    deep = Image.fromarray(numbers.astype(np.uint16) * 9001)
    return {"P": palette, "I;16": deep, "1": Image.fromarray(numbers > 1), "RGB": Image.fromarray(noise(20, 20, 3))}


@pytest.mark.parametrize("ending", [".png", ".tif"])
@pytest.mark.parametrize("mode", masks())
@pytest.mark.parametrize("image_size", [None, 8])
def test_images_keep_their_mode_and_numbers(tmp_path, make_store, mode, ending, image_size):
    folder_of_images(tmp_path / "data")
    mask = masks()[mode]
    text = PngImagePlugin.PngInfo()
    text.add_text("Author", SECRET)
    mask.save(tmp_path / "data" / "a" / f"1_mask{ending}", **({"pnginfo": text} if ending == ".png" else {}))
    (record,) = published(tmp_path, make_store, image_size=image_size)
    assert (record.file, record.published) == (f"a/1_mask{ending}", f"a/1_mask{ending}")
    assert record.note == "excluded: copied without a perturbation"
    with Image.open(tmp_path / "copy" / record.published) as found:
        assert found.mode == mode
        assert np.array_equal(np.asarray(found), np.asarray(mask))
        assert np.array_equal(np.asarray(found.convert("RGB")), np.asarray(mask.convert("RGB")))
    assert SECRET.encode() not in (tmp_path / "copy" / record.published).read_bytes()


def test_a_mask_takes_no_name_of_a_sample_and_what_cannot_be_read_is_recorded(tmp_path, make_store):
    folder_of_images(tmp_path / "data")
    data = tmp_path / "data" / "a"
    masks()["1"].save(data / "1_mask.png")
    masks()["RGB"].save(data / "1_mask.jpg")
    (data / "2_mask.png").write_text("no image")
    records = {record.file: record for record in published(tmp_path, make_store)}
    assert sorted(record.published for record in records.values()) == ["", "a/1_mask-2.png", "a/1_mask.png"]
    assert records["a/2_mask.png"].note.startswith("excluded: left out, it cannot be read (")


@pytest.mark.parametrize("kind", [np.int32, np.float32, np.uint8])
@pytest.mark.parametrize("policy", ["keep", "basic-deidentify"])
def test_volumes_of_any_type(tmp_path, make_store, kind, policy):
    for label in "ab":
        (tmp_path / "data" / label).mkdir(parents=True)
    volume = noise(9, 9, 1, high=200, dtype=np.int16)
    for label in "ab":
        nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / "data" / label / "1.nii.gz")
    parts = nibabel.Nifti1Image((volume > 99).astype(kind) * 7, np.eye(4))
    parts.header["descrip"] = SECRET
    nibabel.save(parts, tmp_path / "data" / "b" / "1_mask.nii.gz")
    (record,) = published(tmp_path, make_store, dicom_tags=policy)
    assert record.published == ("b/1_mask.nii.gz" if policy == "keep" else "b/excluded-000000.nii.gz")
    found = nibabel.load(tmp_path / "copy" / record.published)
    assert found.get_data_dtype() == kind
    assert np.array_equal(found.get_fdata(), parts.get_fdata())
    assert not found.header["descrip"].item()


def test_dicom_files_follow_the_policy(tmp_path, make_store):
    for label in "ab":
        write_dicom(tmp_path / "data" / label / "1.dcm", noise(9, 9))
    mask = (noise(9, 9) > 99).astype(np.uint8) * 3
    write_dicom(tmp_path / "data" / "a" / "1_mask.dcm", mask)
    (record,) = published(tmp_path, make_store)
    assert record.published == "a/excluded-000000.dcm"
    found = pydicom.dcmread(tmp_path / "copy" / record.published)
    assert np.array_equal(found.pixel_array, mask)
    assert NAME not in str(found)


def test_a_copy_that_lacks_a_frame_ends_the_export(tmp_path, make_store, monkeypatch):
    for label in "ab":
        write_dicom(tmp_path / "data" / label / "1.dcm", noise(9, 9))
    write_dicom(tmp_path / "data" / "a" / "1_mask.dcm", noise(3, 9, 9), NumberOfFrames=3)
    real = ReadBack.check

    def check(self, made, sources, records):
        path = made / "a" / "excluded-000000.dcm"
        found = pydicom.dcmread(path)
        found.PixelData, found.NumberOfFrames = found.pixel_array[:2].tobytes(), 2
        found.save_as(path)
        real(self, made, sources, records)

    monkeypatch.setattr(ReadBack, "check", check)
    with pytest.raises(StoreError, match=r"excluded-000000\.dcm, read again, .* \(it holds 2 frames, not 3\)"):
        published(tmp_path, make_store)


def test_recordings(tmp_path, make_store):
    for name in ("a/1.wav", "b/1.wav", "b/1_mask.wav"):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with wave.open(str(path), "wb") as file:
            file.setparams((1, 2, 8000, 0, "NONE", ""))
            file.writeframes(noise(40, high=9000, dtype=np.int16).tobytes())
    (record,) = published(tmp_path, make_store, image_size=None)
    assert (tmp_path / "copy" / record.published).read_bytes() == (tmp_path / "data" / record.file).read_bytes()


def test_a_copy_that_differs_ends_the_export(tmp_path, make_store, monkeypatch):
    folder_of_images(tmp_path / "data")
    masks()["P"].save(tmp_path / "data" / "a" / "1_mask.png")
    real = ReadBack.check

    def check(self, made, sources, records):
        Image.fromarray(np.asarray(masks()["P"]) ^ 1).save(made / "a" / "1_mask.png")
        real(self, made, sources, records)

    monkeypatch.setattr(ReadBack, "check", check)
    with pytest.raises(StoreError, match=r"a/1_mask\.png, read again, is not what was to be published"):
        published(tmp_path, make_store)
