"""DICOM files with a text in every place that holds no pixel; see `plants`."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable

import numpy as np
from dicoms import item
from PIL import Image
from plants import PATIENT, Planter, jpeg, segment
from pydicom import DataElement, Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels.utils import set_pixel_data
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
    generate_uid,
)

TAGS = "DICOM tag "
"""What the places begin with that the policy "keep" publishes."""


def image(pixels: np.ndarray, bits: int, **tags: object) -> Dataset:
    """A dataset of pixels [H, W] or [H, W, 3] with a window and the patient's name."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    grey = pixels.ndim == 2
    set_pixel_data(dataset, pixels, "MONOCHROME2" if grey else "RGB", bits, generate_instance_uid=False)
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, generate_uid()
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
    dataset.PatientName, dataset.PatientID, dataset.Modality = PATIENT, f"{PATIENT} 4711", "CT"
    if grey:
        dataset.WindowCenter, dataset.WindowWidth = 120, 200
    for name, value in tags.items():
        setattr(dataset, name, value)
    return dataset


def saved(dataset: Dataset) -> bytes:
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def tags(pixels: np.ndarray, plant: Planter) -> bytes:
    """Texts that the profile lists and that it does not list, in sequences, private, in no dictionary, in curves."""
    dataset = image(pixels[..., 0].astype(np.int16), 16)
    listed = ("PatientComments", "StudyDescription", "InstitutionName", "ReferringPhysicianName", "ImageComments")
    unlisted = ("Manufacturer", "SoftwareVersions", "RescaleType", "ConvolutionKernel", "WindowCenterWidthExplanation")
    for name in (*listed, *unlisted):
        setattr(dataset, name, plant.text(TAGS + name))
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, 0
    dataset.RequestAttributesSequence = item(RequestedProcedureDescription=plant.text(f"{TAGS}in a sequence"))
    text = plant.text(f"{TAGS}in a code")
    dataset.AnatomicRegionSequence = item(CodeValue=text, CodingSchemeDesignator="99X", CodeMeaning=text)
    block = dataset.private_block(0x0011, plant.text(f"{TAGS}private creator"), create=True)
    block.add_new(1, "LO", plant.text(f"{TAGS}private text"))
    block.add_new(2, "OB", plant.bytes(f"{TAGS}private bytes"))
    block.add_new(3, "SQ", item(PatientComments=plant.text(f"{TAGS}private sequence")))
    dataset.OtherPatientIDsSequence = item(PatientID=plant.text(f"{TAGS}listed sequence"))
    for tag, vr in ((0x00091234, "UN"), (0x0018FFFE, "LO"), (0x50000022, "LO"), (0x60004000, "LT"), (0x00281234, "OB")):
        value = plant.bytes(f"{TAGS}{tag:08x}")
        dataset.add(DataElement(tag, vr, value if vr in ("UN", "OB") else value.decode()))
    return saved(dataset)


def wrong_types(pixels: np.ndarray, plant: Planter) -> bytes:
    """Texts where there should be a number, a code, a UID, a date or bytes, as a file's bytes have them."""
    elements = b""
    for group, element, vr in (
        *((0x0008, 0x0016, b"UI"), (0x0008, 0x0060, b"CS"), (0x0018, 0x0015, b"CS"), (0x0018, 0x0050, b"DS")),
        *((0x0018, 0x1012, b"DA"), (0x0018, 0x1151, b"IS"), (0x0018, 0x9087, b"UN"), (0x0020, 0x0013, b"IS")),
        *((0x0020, 0x0052, b"UI"), (0x0028, 0x0034, b"IS"), (0x0028, 0x1055, b"LO"), (0x0028, 0x2000, b"OB")),
        *((0x0028, 0x2110, b"CS"), (0x0040, 0x0244, b"LT"), (0x2050, 0x0020, b"CS")),
    ):
        text = plant.bytes(f"{TAGS}{group:04x}{element:04x} as {vr.decode()}")
        text += b" " * (len(text) % 2)
        long = vr in (b"UN", b"OB")
        head = struct.pack("<HH2sHI", group, element, vr, 0, len(text)) if long else b""
        elements += (head or struct.pack("<HH2sH", group, element, vr, len(text))) + text
    dataset = image(pixels[..., 0].astype(np.int16), 16)
    for name in ("SOPClassUID", "Modality"):
        del dataset[name]
    dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
    whole = saved_without_class(dataset)
    return merged(whole, elements)


def saved_without_class(dataset: Dataset) -> bytes:
    file = io.BytesIO()
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def merged(whole: bytes, elements: bytes) -> bytes:
    """A file with more elements before its first one: readers do not insist on the order."""
    start = 144 + struct.unpack_from("<I", whole, 140)[0]
    return whole[:start] + elements + whole[start:]


def head(pixels: np.ndarray, plant: Planter) -> bytes:
    """The preamble, the meta information, and padding behind the pixels."""
    dataset = image(pixels[..., 0].astype(np.int16), 16)
    meta = dataset.file_meta
    meta.ImplementationVersionName = plant.bytes("DICOM implementation", 16).decode()
    meta.SourceApplicationEntityTitle = plant.bytes("DICOM application", 16).decode()
    meta.PrivateInformationCreatorUID = "1.2.3"
    meta.PrivateInformation = plant.bytes("DICOM private information")
    dataset.DataSetTrailingPadding = plant.bytes("DICOM trailing padding")
    dataset.IconImageSequence = item(Rows=4, Columns=4, BitsAllocated=8, PixelData=plant.bytes("DICOM icon"))
    dataset.preamble = plant.bytes("DICOM preamble").ljust(128, b"\0")
    return saved(dataset)


def around_pixels(pixels: np.ndarray, plant: Planter) -> bytes:
    """Bytes behind the last pixel, and letters in the four bits above twelve that are stored."""
    stored = pixels[..., 0].astype(np.uint16).ravel()
    letters = np.frombuffer(plant.bytes("DICOM high bits"), np.uint8)
    nibbles = np.stack([letters >> 4, letters & 15], 1).ravel().astype(np.uint16)
    stored[: len(nibbles)] |= nibbles << 12
    dataset = image(pixels[..., 0].astype(np.uint16), 12)
    dataset.PixelData = stored.tobytes() + plant.bytes("DICOM behind the pixels")
    return saved(dataset)


def with_frame(dataset: Dataset, frame: bytes, *more: bytes) -> bytes:
    dataset.PixelData = encapsulate([frame + b"\0" * (len(frame) % 2), *more], has_bot=False)
    dataset["PixelData"].is_undefined_length = True
    return saved(dataset)


def run_lengths(pixels: np.ndarray, plant: Planter) -> bytes:
    """Bytes behind the last segment, and segments that the header names for nothing."""
    dataset = image(np.ascontiguousarray(pixels[..., 0]), 8)
    dataset.compress(RLELossless, generate_instance_uid=False)
    frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
    return with_frame(dataset, frame + plant.bytes("DICOM RLE behind the segments"))


def jpeg_2000(pixels: np.ndarray, plant: Planter) -> bytes:
    """A comment in the codestream, and bytes behind its end."""
    dataset, file = image(np.ascontiguousarray(pixels[..., 0]), 8), io.BytesIO()
    dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
    Image.fromarray(pixels[..., 0]).save(file, "JPEG2000", no_jp2=True)
    frame = file.getvalue()
    at = 4 + int.from_bytes(frame[4:6], "big")
    comment = segment(0x64, b"\0\1" + plant.bytes("DICOM JPEG 2000 comment"))
    return with_frame(dataset, frame[:at] + comment + frame[at:] + plant.bytes("DICOM JPEG 2000 behind the end"))


def baseline(pixels: np.ndarray, plant: Planter) -> bytes:
    """Markers, bytes behind the end, and a fragment behind the last frame."""
    dataset = image(np.ascontiguousarray(pixels[..., 0]), 8)
    dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    fragment = plant.bytes("DICOM one fragment more")
    return with_frame(dataset, jpeg(pixels[..., 0], plant, "DICOM JPEG"), fragment + b"\0" * (len(fragment) % 2))


def tables(pixels: np.ndarray, plant: Planter) -> bytes:
    """Entries of look-up tables behind those that count, and colours of a palette that no pixel has."""
    dataset = image(pixels[..., 0].astype(np.uint8), 8)
    text = plant.bytes("DICOM behind a table")
    entries = np.arange(256, dtype=np.uint16).tobytes() + text + b"\0" * (len(text) % 2)
    table = item(LUTDescriptor=[256, 0, 16], LUTExplanation=plant.text(f"{TAGS}LUT explanation"))
    table[0].add(DataElement("LUTData", "OW", entries))
    dataset.VOILUTSequence = table
    return saved(dataset)


def palette(pixels: np.ndarray, plant: Planter) -> bytes:
    """Colours that no pixel has."""
    dataset = image((pixels[..., 0] % 64).astype(np.uint8), 8, PhotometricInterpretation="PALETTE COLOR")
    for name in ("WindowCenter", "WindowWidth"):
        del dataset[name]
    for colour in ("Red", "Green", "Blue"):
        entries = np.arange(64, dtype=np.uint16).tobytes() + plant.bytes(f"DICOM unused entries of {colour}")
        setattr(dataset, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, 16])
        setattr(dataset, f"{colour}PaletteColorLookupTableData", entries.ljust(512, b"\0"))
    return saved(dataset)


FILES: list[Callable[[np.ndarray, Planter], bytes]] = [
    *(tags, wrong_types, head, around_pixels, run_lengths, jpeg_2000, baseline, tables, palette),
]
"""Kinds of files, from pixels uint8 [H, W, 3]."""
