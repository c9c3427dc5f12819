"""One DICOM file: what its header says of the pixels, and one of its frames."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom import DataElement, Dataset, dcmread
from pydicom.dataelem import RawDataElement
from pydicom.encaps import parse_basic_offsets, parse_fragments
from pydicom.pixels.utils import iter_pixels, pixel_array
from pydicom.tag import Tag
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from hpcule.config.errors import first_line
from hpcule.data.source import Native, Samples
from hpcule.data.sources.array import MOST_COMPRESSED
from hpcule.data.sources.dicom_grid import (
    GREY,
    PALETTE,
    for_frame,
    grid_of,
    is_windowed,
    padding_of,
    set_window,
    to_rgb,
)
from hpcule.data.sources.frames import Head
from hpcule.data.sources.jpeg_header import stated_size
from hpcule.data.sources.layout import UnreadableError

_MOST_PIXELS = 1 << 28
"""Largest number of pixels accepted in a frame; a header that claims more is damaged."""
_DECLARATIONS = {
    "BurnedInAnnotation": "text is burnt into the pixels",
    "RecognizableVisualFeatures": "a face or another feature of the patient can be recognised",
}
_IDENTIFIERS = ("PatientID", "PatientName", "StudyInstanceUID", "SOPInstanceUID")
"""Elements by which the files of a patient are known; the first that a file has counts."""
_DEFERRED = 1 << 16
"""Values of more bytes than this are left in the file while its structure is read."""
_WORDS = {"OW": 2, "OF": 4, "OL": 4, "OD": 8, "OV": 8}
"""Bytes a word of values that pydicom leaves as they lie in the file."""
_ITEM = 8
"""Bytes of a fragment's tag and length."""
_quiet = threading.RLock()
# What it logs and warns of quotes what tags say.
logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)


@dataclass(frozen=True)
class DicomHead(Head):
    """What a file says without its pixels.

    Attributes:
        seen: the smallest and largest stored value where nothing says which are black and white, else None.
        patient: the patient's name and identifier.
        declared: see `Source.declared`.
    """

    seen: tuple[int, int] | None
    patient: frozenset[str]
    declared: tuple[str, ...]


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Whatever goes wrong with a file inside the block is an `UnreadableError` that names it; nothing is warned of."""
    try:
        with _quiet, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Exception as error:  # foreign bytes make decoders raise what they like
        remedy = "replace it, install decoders of most compressions by pip install 'hpcule[dicom,dicom-jpeg]'"
        raise UnreadableError.of(path, _reason(error), "a DICOM image", remedy) from None


def _reason(error: Exception) -> str:
    if "missing dependencies" in str(error):
        return "it needs a decoder: pip install 'hpcule[dicom,dicom-jpeg]'"
    return first_line(error)


def read_head(path: Path, *, decode: bool) -> DicomHead:
    """Read the header, and where `decode` says so, or where no window is given, every frame once.

    Raises:
        UnreadableError: the file is damaged, no image, of another depth, or of a compression that nothing here decodes.
    """
    with reading(path):
        header, source = _opened(path)
        _check(header)
        frames, grey = _frames(path, header), header.PhotometricInterpretation in GREY
        if decode and source is path:
            # Of a file that ends too soon, pydicom gives what it finds.
            _check(dcmread(path))
        windowed = not grey or all(is_windowed(for_frame(header, frame)) for frame in range(frames))
        if windowed:
            grid_of(for_frame(header, 0))
        ends = [_ends(pixels, header) for pixels in iter_pixels(source)] if decode or not windowed else None
        if ends is not None and len(ends) != frames:
            raise ValueError(f"it has {len(ends)} frames, not {frames}")
        seen = None if windowed or ends is None else (min(low for low, _ in ends), max(high for _, high in ends))
        names = {str(header.get(name) or "") for name in ("PatientID", "PatientName")}
        declared = tuple(_DECLARATIONS[name] for name in declarations(header))
        size = int(header.Rows), int(header.Columns)
        label_map = "modality" if header.get("Modality") == "SEG" else ""
        return DicomHead(frames, size, grey, label_map, seen, frozenset(names - {""}), declared)


def read_frame(path: Path, frame: int, seen: tuple[int, int] | None) -> Native:
    """A frame as it is stored, in whole channels [C, H, W], with its grid.

    Palettes and YBR become RGB.

    Args:
        path: the file.
        frame: its number, from 0 on.
        seen: of `DicomHead`.

    Raises:
        UnreadableError: see `read_head`.
    """
    with reading(path):
        header, source = _opened(path)
        pixels: Samples = pixel_array(source, index=frame)
        pixels = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
        _check_values(pixels, header)
        stored_as = str(header.PhotometricInterpretation)
        header = for_frame(little_endian(header), frame)
        if stored_as == PALETTE:
            pixels = to_rgb(pixels, header)
        elif stored_as in GREY and not is_windowed(header):
            assert seen is not None
            set_window(header, seen)
        planes = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
        changes = () if stored_as in (*GREY, "RGB") else (f"{stored_as} became RGB",)
        return Native(planes, changes=changes, grid=grid_of(header))


def read_patient(path: Path) -> str:
    """What the files of one patient have in common: the identifier, or the next best that a file has.

    Raises:
        UnreadableError: the file is damaged.
    """
    with reading(path):
        header = dcmread(path, specific_tags=list(_IDENTIFIERS), stop_before_pixels=True)
        found = ((name, str(header.get(name) or "").strip()) for name in _IDENTIFIERS)
        return next((f"{name} {text}" for name, text in found if text), "")


def little_endian(dataset: Dataset) -> Dataset:
    """The same dataset where values that pydicom leaves as bytes are little endian."""
    if dataset.original_encoding[1]:
        return dataset

    def swap(_: Dataset, element: DataElement) -> None:
        if (size := _WORDS.get(element.VR)) and element.value:
            element.value = np.frombuffer(element.value, f"V{size}").view(f">u{size}").astype(f"<u{size}").tobytes()

    dataset.walk(swap)
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.set_original_encoding(False, True)
    return dataset


def _opened(path: Path) -> tuple[Dataset, Dataset | Path]:
    """The header, and what to decode frames from: the file where they can be read one by one, else all of it."""
    header = dcmread(path, stop_before_pixels=True)
    deflated = header.file_meta.TransferSyntaxUID == DeflatedExplicitVRLittleEndian
    return header, dcmread(path) if deflated or int(header.get("NumberOfFrames") or 1) == 1 else path


def _check(header: Dataset) -> None:
    if "Rows" not in header or "BitsAllocated" not in header:
        raise ValueError("it holds no image")
    if not header.get("SOPClassUID"):
        raise ValueError("it does not say what it is: no SOP class")
    for keyword in ("BitsAllocated", "BitsStored", "HighBit", "Rows", "Columns", "SamplesPerPixel"):
        if not isinstance(header.get(keyword, 0), int):
            raise ValueError(f"its {keyword} is not one number")
    if header.BitsAllocated not in (8, 16) or not 2 <= header.BitsStored <= header.BitsAllocated:
        raise ValueError(f"{header.BitsStored} of {header.BitsAllocated} bits; valid are 2 to 16")
    if header.get("HighBit", header.BitsStored - 1) != header.BitsStored - 1:
        raise ValueError(
            f"its highest bit is {header.HighBit}; valid is {header.BitsStored - 1}, the last that it stores"
        )
    if min(header.Rows, header.Columns) < 1 or header.Rows * header.Columns > _MOST_PIXELS:
        raise ValueError(f"{header.Columns}x{header.Rows} pixels")
    if header.SamplesPerPixel != (1 if header.PhotometricInterpretation in (*GREY, PALETTE) else 3):
        raise ValueError(f"{header.SamplesPerPixel} values a pixel of {header.PhotometricInterpretation}")


def _frames(path: Path, header: Dataset) -> int:
    """Number of frames that a file's header claims and its pixels can be.

    Raises:
        ValueError: it claims none, or more than the file holds.
    """
    claimed, most = header.get("NumberOfFrames"), _most_frames(path, header)
    frames = 1 if claimed is None or claimed == "" or (claimed == 0 and most == 1) else int(claimed)
    if not 0 < frames <= most:
        raise ValueError(f"its header promises {frames} frames, and it holds at most {most}")
    return frames


def _most_frames(path: Path, header: Dataset) -> int:
    """How many frames the pixels of a file can be; none of them is decoded.

    Raises:
        ValueError: a compressed frame has another size than the file says.
    """
    samples = 2 if header.PhotometricInterpretation == "YBR_FULL_422" else int(header.SamplesPerPixel)
    frame = header.Rows * header.Columns * samples * (header.BitsAllocated // 8)
    size, syntax = path.stat().st_size, header.file_meta.TransferSyntaxUID
    if syntax == DeflatedExplicitVRLittleEndian:
        return int(size * MOST_COMPRESSED // frame)
    with path.open("rb") as file:
        pixels = dict(dcmread(file, defer_size=_DEFERRED).items())[Tag("PixelData")]
        assert isinstance(pixels, RawDataElement)
        if not syntax.is_compressed:
            return int(min(pixels.length, size - pixels.value_tell) // frame)
        file.seek(pixels.value_tell)
        parse_basic_offsets(file)
        fragments, places = parse_fragments(file)
        for place in places:
            file.seek(place + _ITEM)
            _check_size(stated_size(file), header)
        # A frame has at least one.
        return fragments


def _check_size(stated: tuple[int, int] | None, header: Dataset) -> None:
    if stated is not None and stated != (header.Rows, header.Columns):
        rows, columns = stated
        raise ValueError(f"a compressed frame has {columns}x{rows} pixels, not {header.Columns}x{header.Rows}")


def declarations(header: Dataset) -> list[str]:
    """Keywords of the elements by which a file says that its pixels show who the patient is."""
    return [name for name in _DECLARATIONS if "YES" in str(header.get(name) or "").upper()]


def _ends(pixels: Samples, header: Dataset) -> tuple[int, int]:
    """Smallest and largest value that is no padding; of padding alone, its own."""
    _check_values(pixels, header)
    padding = padding_of(header)
    inside = pixels if padding is None else pixels[(pixels < padding[0]) | (pixels > padding[1])]
    some = inside if inside.size else pixels
    return int(some.min()), int(some.max())


def _check_values(pixels: Samples, header: Dataset) -> None:
    """Refuse bits above those that a file stores, which some decoders of compressed frames leave.

    Raises:
        ValueError: there are such bits.
    """
    top = 1 << (int(header.BitsStored) - (1 if header.PixelRepresentation else 0))
    if pixels.max() >= top or pixels.min() < (-top if header.PixelRepresentation else 0):
        raise ValueError(f"its pixels have more than the {header.BitsStored} bits that it stores")
