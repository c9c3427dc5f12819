"""From the grey levels that a DICOM image stores to those that a viewer shows: modality, window, polarity, palette.

PS3.3 of the standard, C.7.6.3 (pixels), C.11.1 (modality) and C.11.2 (window); the arithmetic is pydicom's.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from pydicom import Dataset
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi_lut
from pydicom.valuerep import format_number_as_ds

from hpcule.data.grid import HOUNSFIELD, SHOWN, Grid, Scale, as_levels, linear
from hpcule.data.source import Samples

GREY = ("MONOCHROME1", "MONOCHROME2")
PALETTE = "PALETTE COLOR"
_FAR = 1e30
"""A value outside every display window."""
_PER_FRAME = ("PixelValueTransformationSequence", "FrameVOILUTSequence")
"""Where enhanced images keep what others keep at the top."""


def for_frame(header: Dataset, frame: int) -> Dataset:
    """The header of an image with what an enhanced one says of all frames, and of this one, at its top."""
    own = Dataset(header)
    own.file_meta = header.file_meta
    for groups in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        items = header.get(groups) or []
        if items:
            item = items[frame if groups.startswith("Per") and frame < len(items) else 0]
            for name in _PER_FRAME:
                for values in item.get(name) or []:
                    own.update(values)
    return own


def is_windowed(header: Dataset) -> bool:
    """Whether the header says which values are shown from black to white."""
    if header.get("VOILUTSequence"):
        return True
    width, center = _first(header.get("WindowWidth")), _first(header.get("WindowCenter"))
    if width is None or center is None:
        return False
    return width >= 1 if _is_linear(header) else width > 0


def set_window(header: Dataset, seen: tuple[int, int]) -> None:
    """Window the smallest to the largest stored value of an image that says nothing itself."""
    ends = np.asarray(apply_modality_lut(np.array(seen, np.int32), header), np.float64)
    header.VOILUTFunction = "LINEAR"
    header.WindowCenter = format_number_as_ds(float(ends.sum() + 1) / 2)
    header.WindowWidth = format_number_as_ds(float(abs(ends[1] - ends[0]) + 1))


def grid_of(header: Dataset) -> Grid:
    """The grid of an image, windowed where it is grey; of a colour image, that of each channel of what `to_rgb` gives.

    Raises:
        ValueError: it says what contradicts itself, or what is not supported.
    """
    bits = int(header.BitsStored)
    if header.PhotometricInterpretation not in GREY:
        top = SHOWN if header.PhotometricInterpretation == PALETTE else (1 << bits) - 1
        return linear(0, top, (0, top))
    lowest = -(1 << (bits - 1)) if header.PixelRepresentation else 0
    values = np.arange(lowest, lowest + (1 << bits), dtype=np.int32)
    share = _windowed(apply_modality_lut(values, header), header)
    inverted = header.PhotometricInterpretation == "MONOCHROME1"
    scale = _scale_of(header)
    table = as_levels(1 - share if inverted else share)
    if header.get("VOILUTSequence") or header.get("ModalityLUTSequence"):
        unit = _unit_of(table)
    else:
        slope = 1.0 if scale is None else scale.slope
        unit = _width(header) / SHOWN / slope * (-1 if inverted else 1)
        if not math.isfinite(unit):
            raise ValueError("its window or rescale slope is no finite number")
    return Grid(lowest, table, unit, padding_of(header), scale)


def _scale_of(header: Dataset) -> Scale | None:
    """The modality's rescale; None without one, or with a table in its place.

    C.11.1.1.2: without a type, it is in Hounsfield units where the modality is CT, and in no specified unit elsewhere.

    Raises:
        ValueError: it is no usable number.
    """
    if header.get("ModalityLUTSequence") or "RescaleSlope" not in header or "RescaleIntercept" not in header:
        return None
    slope, intercept = float(header.RescaleSlope), float(header.RescaleIntercept)
    if slope == 0:
        raise ValueError("its rescale slope is 0")
    if not math.isfinite(slope) or not math.isfinite(intercept):
        raise ValueError("its rescale slope or intercept is no finite number")
    usual = HOUNSFIELD if header.get("Modality") == "CT" else "US"
    return Scale(slope, intercept, str(header.get("RescaleType") or usual))


def padding_of(header: Dataset) -> tuple[int, int] | None:
    """First and last stored value that is padding, as PS3.3 C.7.5.1.1.2 gives them, or None."""
    value, limit = header.get("PixelPaddingValue"), header.get("PixelPaddingRangeLimit")
    if not isinstance(value, int):
        return None
    ends = [value, limit if isinstance(limit, int) else value]
    # Some devices write the negative ones of signed images as if they were unsigned.
    first, last = sorted(end - 65536 if header.PixelRepresentation and end > 32767 else end for end in ends)
    return first, last


def to_rgb(pixels: Samples, header: Dataset) -> Samples:
    """Palette entries [..., C] of 8 bits for the indices [...] of a palette image."""
    colours: Samples = apply_color_lut(pixels, header)[..., :3]
    return colours if colours.dtype == np.uint8 else (colours >> 8).astype(np.uint8)


def _windowed(values: npt.NDArray[np.generic], header: Dataset) -> npt.NDArray[np.float64]:
    """Shares of white, for values after the modality's transform."""
    if table := header.get("VOILUTSequence"):
        entries, _, depth = table[0].LUTDescriptor
        if depth == 8 and not 0 < entries <= 256:
            raise ValueError(f"its VOI LUT has {entries} entries of 8 bits")
        looked_up = apply_voi_lut(values.astype(np.int32), header)
        return np.asarray(looked_up / ((1 << int(depth)) - 1), np.float64)
    with np.errstate(over="ignore"):
        shown = apply_voi_lut(np.append(values.astype(np.float64), [-_FAR, _FAR]), header)
    black, white = shown[-2:]
    return np.asarray((shown[:-2] - black) / (white - black), np.float64)


def _is_linear(header: Dataset) -> bool:
    return str(header.get("VOILUTFunction") or "LINEAR").upper() == "LINEAR"


def _width(header: Dataset) -> float:
    """Distance from black to white, after the modality's transform; of a sigmoid, with the slope of its middle."""
    width = _first(header.WindowWidth)
    assert width is not None
    # C.11.2.1.2.1: a window of 256 shows 256 values, from the first to the last it is 255.
    return width - 1 if _is_linear(header) else width


def _unit_of(table: npt.NDArray[np.uint8]) -> float:
    """Stored values per level shown, on average from the first to the last that differ."""
    steps = np.flatnonzero(np.diff(table.astype(np.int16)))
    if not steps.size:
        return 0.0
    span = float(steps[-1] - steps[0] + 1) / SHOWN
    return -span if table[0] > table[-1] else span


def _first(value: object) -> float | None:
    """The first of one or several values; None where there is none."""
    values = value if isinstance(value, (list, tuple)) or hasattr(value, "__iter__") else [value]
    found = next(iter(values), None)
    return None if found is None or found == "" else float(found)
