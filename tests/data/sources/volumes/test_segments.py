"""Masks from DICOM segmentations, aligned with the images that they refer to."""

import numpy as np
import pytest
from dicoms import write_series
from segmentations import write_study

from hpcule.config.errors import DataError
from hpcule.data.opening import Opening
from hpcule.tasks.table import task_of


def test_masks_follow_positions_and_not_names(tmp_path):
    expected = write_study(tmp_path / "data")
    source = Opening(volumes=True).source(str(tmp_path / "data"))
    assert (len(source), source.depth) == (1, 5)
    assert source.masks.names == ("background", "lesion", "liver")
    assert np.array_equal(source.masks.read(np.array([0]))[0], expected.reshape(-1, 7))
    assert task_of("segmentation", source).outputs == 3
    assert [entry.file for entry in source.left_out] == ["seg0.dcm"]
    assert source.ignored == []


def test_slices_have_masks_too_and_follow_their_size(tmp_path):
    expected = write_study(tmp_path / "data")
    source = Opening().source(str(tmp_path / "data"))
    found = {source.masks.native(sample).tobytes() for sample in range(5)}
    assert found == {plane.tobytes() for plane in expected}
    assert Opening(image_size=12).source(str(tmp_path / "data")).masks.read(np.arange(2)).shape == (2, 12, 12)


def test_images_without_a_segmentation_are_named(tmp_path):
    write_study(tmp_path / "data")
    write_series(tmp_path / "data", 1)
    with pytest.raises(
        DataError, match=r"s1-\d\.dcm has no mask: none of the 1 segmentation files refers to it; add one"
    ):
        Opening().source(str(tmp_path / "data"))
    assert Opening(exclude=("seg0.dcm",)).source(str(tmp_path / "data")).masks is None


def test_a_pixel_of_two_segments_is_named(tmp_path):
    write_study(tmp_path / "data", overlap=True)
    with pytest.raises(DataError, match=r"seg0\.dcm cannot be read as a DICOM segmentation .*; give each pixel one"):
        Opening().source(str(tmp_path / "data")).masks.read(np.arange(5))


def test_what_only_looks_like_a_segmentation_is_named(tmp_path):
    write_study(tmp_path / "data")
    path = tmp_path / "data" / "seg0.dcm"
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(DataError, match=r"seg0\.dcm cannot be read as a DICOM segmentation"):
        Opening().source(str(tmp_path / "data"))
