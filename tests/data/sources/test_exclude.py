"""Files that match a pattern are no samples, in every kind of folder, and are listed with the others left out."""

from __future__ import annotations

import wave

import numpy as np
import pytest
from dicoms import noise, write_dicom
from PIL import Image

from hpcule.config.errors import DataError, UsageError
from hpcule.data.opening import Opening


def write_image(path):
    Image.fromarray(np.full((8, 8), 9, np.uint8)).save(path.with_suffix(".png"))


def write_frame(path):
    write_dicom(path.with_suffix(".dcm"), noise(8, 8))


def write_volume(path):
    import nibabel

    nibabel.Nifti1Image(np.arange(64, dtype=np.int16).reshape(8, 8, 1), np.eye(4)).to_filename(path.with_suffix(".nii"))


def write_recording(path):
    with wave.open(str(path.with_suffix(".wav")), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(40))


WRITERS = {"folder": write_image, "dicom": write_frame, "nifti": write_volume, "wav": write_recording}
FILES = (
    "train/a/1",
    "train/a/2",
    "train/a/2_mask",
    "train/b/1",
    "train/only_masks/1_mask",
    "test/b/1",
    "test/b/1_mask",
)
CASES = {
    "by name": (("*_mask.*",), ["a/1", "a/2", "b/1"], ["a/2_mask", "only_masks/1_mask"], ("a", "b")),
    "a class": (("only_masks/*",), ["a/1", "a/2", "a/2_mask", "b/1"], ["only_masks/1_mask"], ("a", "b")),
    "from DATA on": (
        ("train/a/2*", "train/only_masks/*"),
        ["a/1", "b/1"],
        ["a/2", "a/2_mask", "only_masks/1_mask"],
        ("a", "b"),
    ),
    "none": ((), ["a/1", "a/2", "a/2_mask", "b/1", "only_masks/1_mask"], [], ("a", "b", "only_masks")),
}


def stems(files):
    return sorted(file.rpartition(".")[0] for file in files)


@pytest.fixture(params=WRITERS)
def collection(request, tmp_path):
    if request.param in ("dicom", "nifti"):
        pytest.importorskip({"dicom": "pydicom", "nifti": "nibabel"}[request.param])
    for file in FILES:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        WRITERS[request.param](tmp_path / file)
    return request.param, tmp_path


@pytest.mark.parametrize("case", CASES)
def test_what_matches_is_left_out_and_listed(collection, case):
    kind, folder = collection
    exclude, kept, gone, classes = CASES[case]
    source = Opening(exclude=exclude).source(str(folder))
    assert source.kind == kind
    assert stems(source.file_name(sample) for sample in range(len(source))) == kept
    assert stems(entry.file for entry in source.left_out) == gone
    assert all(entry.excluded for entry in source.left_out)
    assert source.class_names == classes
    assert [source.class_names[label] for label in source.labels] == [name.partition("/")[0] for name in kept]
    assert len(source.read(np.arange(len(source)))) == len(kept)


def test_the_kind_of_data_and_their_splits_are_those_of_what_stays(tmp_path):
    pytest.importorskip("pydicom")
    for name in ("train/a/1", "train/b/1", "test/a/1"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write_frame(tmp_path / name)
    (tmp_path / "previews").mkdir()
    write_image(tmp_path / "previews" / "1")
    opening = Opening(exclude=("previews/*",))
    assert opening.splits(str(tmp_path)) == ("train", "test")
    assert opening.source(str(tmp_path)).kind == "dicom"


def test_images_next_to_class_folders_may_be_excluded(tmp_path):
    (tmp_path / "a").mkdir()
    write_image(tmp_path / "a" / "1")
    write_image(tmp_path / "overview")
    with pytest.raises(DataError, match="next to folders"):
        Opening().source(str(tmp_path))
    assert len(Opening(exclude=("overview.*",)).source(str(tmp_path))) == 1


def test_nothing_left_is_an_error_that_names_the_setting(tmp_path):
    write_image(tmp_path / "1")
    with pytest.raises(DataError, match=r"holds no images besides those that exclude=\['\*'\] leaves out"):
        Opening(exclude=("*",)).source(str(tmp_path))


def test_arrays_have_no_files_but_may_be_the_test_set(tmp_path):
    (tmp_path / "data").mkdir()
    write_image(tmp_path / "data" / "1")
    np.savez(tmp_path / "test.npz", images=np.zeros((3, 8, 8), np.uint8))
    opening = Opening(exclude=("*_mask.png",))
    with pytest.raises(UsageError, match=r"exclude=.*test\.npz is no folder"):
        opening.source(str(tmp_path / "test.npz"))
    assert len(opening.test(str(tmp_path / "data"), str(tmp_path / "test.npz"))) == 3
