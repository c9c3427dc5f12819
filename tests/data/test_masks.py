"""What looks like a mask among samples is named, and images are not."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
from dicoms import noise, write_dicom
from PIL import Image

from hpcule.data.masks import mask_notice
from hpcule.data.opening import Opening

BLOCKS = np.kron(noise(5, 5, low=40, high=215), np.ones((8, 8), np.uint8))


@pytest.fixture
def folder(tmp_path):
    """Images of 25 grey levels, which are no masks."""
    for label in "ab":
        (tmp_path / label).mkdir()
        Image.fromarray(BLOCKS).save(tmp_path / label / "basketball.png")
    return tmp_path


def notice(folder, **opening):
    return mask_notice(Opening(**opening).source(str(folder)))


def test_images_are_none(folder):
    assert notice(folder) is None


@pytest.mark.parametrize("name", ["a_mask", "case1-seg", "GT", "x.labels", "aparc+aseg", "roi2", "ground truth 3"])
def test_names_that_tell(folder, name):
    Image.fromarray(BLOCKS).save(folder / "a" / f"{name}.png")
    assert f"1 file(s) look like masks or label maps, and would be perturbed as images are: a/{name}.png" in notice(
        folder
    )


@pytest.mark.parametrize("opening", [{}, {"image_size": 16}, {"tile_size": 16}])
def test_few_values_tell(folder, opening):
    Image.fromarray((BLOCKS > 120).astype(np.uint8) * 255).save(folder / "b" / "x.png")
    assert "b/x.png (2 distinct values). `craft --exclude" in notice(folder, **opening)


def test_maps_of_class_numbers_tell(folder):
    Image.fromarray(noise(40, 40, high=33)).save(folder / "b" / "x.png")
    assert "b/x.png (34 distinct values)" in notice(folder)


def test_volumes(tmp_path):
    for name, values in {"t1": noise(16, 16, 3, high=900, dtype=np.int16), "x": noise(16, 16, 3, high=4)}.items():
        nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / f"{name}.nii")
    assert "1 file(s) look like" in notice(tmp_path)
    assert "x.nii (5 distinct values)" in notice(tmp_path)


def test_headers_that_tell(tmp_path):
    (tmp_path / "volumes").mkdir()
    values = noise(16, 16, 3, high=900, dtype=np.int16)
    for name, code in {"t1": "none", "t2": "z score", "parts": "label", "names": "neuroname"}.items():
        image = nibabel.Nifti1Image(values, np.eye(4))
        image.header.set_intent(code)
        nibabel.save(image, tmp_path / "volumes" / f"{name}.nii")
    for name, modality in {"1": "CT", "2": "SEG"}.items():
        write_dicom(tmp_path / "films" / f"{name}.dcm", noise(16, 16), Modality=modality)
    found = notice(tmp_path / "volumes")
    assert "2 file(s) look like" in found
    assert "names.nii (its intent code says so)" in found
    assert "1 file(s) look like" in notice(tmp_path / "films")
    assert "2.dcm (its modality says so)" in notice(tmp_path / "films")


def test_arrays_have_no_files(tmp_path):
    np.savez(tmp_path / "x.npz", images=noise(4, 8, 8, high=1))
    assert notice(tmp_path / "x.npz") is None
