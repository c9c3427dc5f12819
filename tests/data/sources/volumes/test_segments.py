"""Masks from DICOM segmentations, aligned with the images that they refer to."""

import highdicom
import numpy as np
import pytest
from dicoms import write_series
from highdicom.sr.coding import CodedConcept
from pydicom import dcmread
from pydicom.uid import generate_uid

from hpcule.config.errors import DataError
from hpcule.data.opening import Opening
from hpcule.tasks.table import task_of

LABELS = ("lesion", "liver")


def write_segmentation(path, images, masks, labels=LABELS, *, overlap=False):
    """A file of segments for images [D], masks [D, H, W] of their numbers, empty slices left out."""
    codes = CodedConcept("85756007", "SCT", "Tissue"), CodedConcept("10200004", "SCT", "Liver")
    segments = [
        highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=label,
            segmented_property_category=codes[0],
            segmented_property_type=codes[1],
            algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.MANUAL,
        )
        for number, label in enumerate(labels, 1)
    ]
    pixels = np.stack([masks == number for number in range(1, len(labels) + 1)], -1)
    if overlap:
        pixels[..., 1] |= pixels[..., 0]
    highdicom.seg.Segmentation(
        source_images=images,
        pixel_array=pixels,
        segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=segments,
        series_instance_uid=generate_uid(),
        series_number=2,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="made",
        manufacturer_model_name="made",
        software_versions="1",
        device_serial_number="1",
        omit_empty_frames=True,
    ).save_as(path)


def study(folder, number=0, **settings):
    """A series and its segmentation; slices are given in the order of their names, which is not that in space."""
    values = write_series(folder, number, StudyInstanceUID=generate_uid(), FrameOfReferenceUID=generate_uid(), **TAGS)
    images = [dcmread(path) for path in sorted(folder.glob(f"s{number}-*.dcm"))]
    masks = np.random.default_rng(number).integers(0, 3, (5, 6, 7)).astype(np.uint8)
    masks[1] = 0
    order = [int(np.flatnonzero([np.array_equal(one.pixel_array, plane) for plane in values])[0]) for one in images]
    write_segmentation(folder / f"seg{number}.dcm", images, masks[order], **settings)
    return masks


TAGS = {
    "AccessionNumber": "",
    "StudyID": "",
    "StudyTime": "",
    "ReferringPhysicianName": "",
    "PatientSex": "F",
    "PixelSpacing": [1, 1],
    "SliceThickness": 2.5,
}


def test_masks_follow_positions_and_not_names(tmp_path):
    expected = study(tmp_path / "data")
    source = Opening(volumes=True).source(str(tmp_path / "data"))
    assert (len(source), source.depth) == (1, 5)
    assert source.masks.names == ("background", "lesion", "liver")
    assert np.array_equal(source.masks.read(np.array([0]))[0], expected.reshape(-1, 7))
    assert task_of("segmentation", source).outputs == 3
    assert [entry.file for entry in source.left_out] == ["seg0.dcm"]
    assert source.ignored == []


def test_slices_have_masks_too_and_follow_their_size(tmp_path):
    expected = study(tmp_path / "data")
    source = Opening().source(str(tmp_path / "data"))
    found = {source.masks.native(sample).tobytes() for sample in range(5)}
    assert found == {plane.tobytes() for plane in expected}
    assert Opening(image_size=12).source(str(tmp_path / "data")).masks.read(np.arange(2)).shape == (2, 12, 12)


def test_images_without_a_segmentation_are_named(tmp_path):
    study(tmp_path / "data")
    write_series(tmp_path / "data", 1)
    with pytest.raises(
        DataError, match=r"s1-\d\.dcm has no mask: none of the 1 segmentation files refers to it; add one"
    ):
        Opening().source(str(tmp_path / "data"))
    assert Opening(exclude=("seg0.dcm",)).source(str(tmp_path / "data")).masks is None


def test_a_pixel_of_two_segments_is_named(tmp_path):
    study(tmp_path / "data", overlap=True)
    with pytest.raises(DataError, match=r"seg0\.dcm cannot be read as a DICOM segmentation .*; give each pixel one"):
        Opening().source(str(tmp_path / "data")).masks.read(np.arange(5))


def test_what_only_looks_like_a_segmentation_is_named(tmp_path):
    study(tmp_path / "data")
    path = tmp_path / "data" / "seg0.dcm"
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(DataError, match=r"seg0\.dcm cannot be read as a DICOM segmentation"):
        Opening().source(str(tmp_path / "data"))
