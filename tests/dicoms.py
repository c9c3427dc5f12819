"""DICOM files written for tests, and a slow reading of them by the formulas of PS3.3."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from pydicom import Dataset, Sequence
from pydicom.dataset import FileMetaDataset
from pydicom.pixels.utils import set_pixel_data
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

OBLIQUE = np.array([1, 0, 0, 0, 0.8, 0.6])
"""Directions of rows and columns of tilted slices."""
NAME, BIRTH, PLACE = "Mustermann^Erika", "19640812", "Klinikum Beispielstadt"


def write_dicom(path: Path, pixels, *, bits=None, stored_as="MONOCHROME2", patient="KH-4711", **tags) -> Dataset:
    """A CT image [H, W], [F, H, W] or [H, W, 3] of a patient who must not be found again; `tags` are set on top."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    set_pixel_data(dataset, pixels, stored_as, bits or pixels.dtype.itemsize * 8)
    dataset.SOPClassUID = CTImageStorage
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
    dataset.FrameOfReferenceUID = generate_uid()
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.Modality, dataset.PatientName, dataset.PatientID = "CT", NAME, patient
    dataset.PatientBirthDate, dataset.StudyDate, dataset.ContentDate = BIRTH, BIRTH, BIRTH
    dataset.InstitutionName, dataset.BodyPartExamined = PLACE, "CHEST"
    dataset.InstanceNumber = 7
    for name, value in tags.items():
        setattr(dataset, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return dataset


def write_series(folder, number=0, depth=5, *, size=6, orientation=OBLIQUE, gap=2.5, names=None, **tags):
    """A series [D, H, W] along the normal, in files whose names and instance numbers say nothing of their order."""
    draws = np.random.default_rng(number)
    values = draws.integers(0, 4000, (depth, size, size + 1)).astype(np.uint16)
    normal, series = np.cross(orientation[:3], orientation[3:]), generate_uid()
    order = draws.permutation(depth)
    for k in range(depth):
        place = np.array([10.0, -20, 5]) + normal * gap * k
        write_dicom(
            folder / (names[k] if names else f"s{number}-{order[k]}.dcm"),
            values[k],
            bits=12,
            SeriesInstanceUID=series,
            SOPInstanceUID=generate_uid(),
            InstanceNumber=int(order[k]),
            ImagePositionPatient=[f"{one:.6f}" for one in place],
            ImageOrientationPatient=[f"{one:.6f}" for one in orientation],
            **{"WindowCenter": 2000, "WindowWidth": 4000, "RescaleSlope": 1, "RescaleIntercept": -1000, **tags},
        )
    return values


def item(**tags) -> Sequence:
    """A sequence of one item."""
    one = Dataset()
    for name, value in tags.items():
        setattr(one, name, value)
    return Sequence([one])


def shown(value: int, dataset: Dataset) -> int:
    """The level that a viewer shows of one stored value of a windowed grey image, from C.11.1 and C.11.2."""
    x = value * float(dataset.get("RescaleSlope", 1)) + float(dataset.get("RescaleIntercept", 0))
    center, width = float(dataset.WindowCenter), float(dataset.WindowWidth)
    function = dataset.get("VOILUTFunction", "LINEAR")
    if function == "SIGMOID":
        share = 1 / (1 + math.exp(-4 * (x - center) / width))
    elif function == "LINEAR_EXACT":
        share = (x - center) / width + 0.5
    else:
        share = (x - (center - 0.5)) / (width - 1) + 0.5
    share = min(max(share, 0), 1)
    return round((1 - share if dataset.PhotometricInterpretation == "MONOCHROME1" else share) * 255)


def noise(*shape, low=0, high=255, dtype=np.uint8, seed=0):
    """Random stored values, both ends included."""
    return np.random.default_rng(seed).integers(low, high, shape, endpoint=True).astype(dtype)
