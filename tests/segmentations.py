"""Studies of a DICOM series and its segmentation."""

import highdicom
import numpy as np
from dicoms import write_series
from highdicom.sr.coding import CodedConcept
from pydicom import dcmread
from pydicom.uid import generate_uid

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


def write_study(folder, number=0, **settings):
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
