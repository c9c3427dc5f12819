"""Each number of a header that says how much there is, with values that no file can mean: the file is refused in one
line that names it, left out where that is asked for, or read as it is, and memory stays small."""

from __future__ import annotations

import gzip
import io
import re
import resource
import struct
import sys
import tracemalloc
import warnings
import wave
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from dicoms import noise, write_dicom
from PIL import Image

from hpcule.config.errors import DataError
from hpcule.data.opening import Opening

sys.path.insert(0, str(Path(__file__).parents[3] / "bench"))
import header_fields
from header_fields import VALUES, Field, Find

MEMORY = 64 << 20
"""Largest number of bytes that Python and NumPy may hold, for files of some kilobytes."""
PIXELS = noise(24, 16, 3)


def picture(kind: str, **settings: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, format=kind, **settings)
    return file.getvalue()


def apng() -> bytes:
    return picture("PNG", save_all=True, append_images=[Image.fromarray(255 - PIXELS)])


def wav() -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setparams((2, 2, 8000, 0, "NONE", ""))
        out.writeframes(PIXELS.tobytes())
    return file.getvalue()


def flac() -> bytes:
    soundfile = pytest.importorskip("soundfile")
    file = io.BytesIO()
    soundfile.write(file, PIXELS.astype(np.int16).reshape(-1, 2) << 6, 8000, format="FLAC")
    return file.getvalue()


def nifti(version: int) -> bytes:
    nibabel = pytest.importorskip("nibabel")
    kind = nibabel.Nifti1Image if version == 1 else nibabel.Nifti2Image
    return kind(PIXELS.astype(np.int16), np.eye(4)).to_bytes()


FILES: dict[str, tuple[Callable[[], bytes], Find]] = {
    ".tif": (lambda: picture("TIFF"), header_fields.tiff_fields),
    ".jpg": (lambda: picture("JPEG"), header_fields.jpeg_fields),
    ".png": (lambda: picture("PNG"), header_fields.png_fields),
    ".2.png": (apng, header_fields.apng_fields),
    ".bmp": (lambda: picture("BMP"), header_fields.bmp_fields),
    ".webp": (lambda: picture("WEBP", lossless=True), header_fields.webp_fields),
    ".wav": (wav, header_fields.wav_fields),
    ".flac": (flac, header_fields.flac_fields),
    ".nii": (lambda: nifti(1), header_fields.nifti_fields(1)),
    ".2.nii": (lambda: nifti(2), header_fields.nifti_fields(2)),
    ".nii.gz": (lambda: nifti(1), header_fields.nifti_fields(1)),
}
ARE_SIZES = ("width", "height", "dim[1]", "dim[2]", "dim[3]", "samples", "channels", "frames", "data")


def outcome(data: Path, **opening: object) -> str:
    """What is said of the data where they are refused, or "" where all of them can be read."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tracemalloc.start()
    try:
        source = Opening(**opening).source(str(data))
        for sample in range(len(source)):
            source.read(np.array([sample]))
        said = ""
    except DataError as error:
        said = str(error)
        assert "\n" not in said
        assert len(said) < 1000
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < MEMORY, peak
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 4 * MEMORY >> 10
    return said


def check(folder: Path, bad: Path, field: str, value: int, **opening: object) -> None:
    said = outcome(folder, **opening)
    assert not said or bad.name in said, said
    if said and not re.search(
        "convert it|give all one rate", said
    ):  # what is whole but of another kind is not left out
        kept = Opening(**opening, skip_unreadable=True).source(str(folder))
        assert [entry.file for entry in kept.left_out] == [bad.name]
        assert outcome(folder, **opening, skip_unreadable=True) == ""
    assert said or field not in ARE_SIZES or 0 < value < 1 << 20, f"{field}={value} was taken"


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("ending", FILES)
def test_numbers_of_files(tmp_path, ending, value):
    make, find = FILES[ending]
    data = make()
    packed = gzip.compress if ending.endswith(".gz") else bytes
    for number, (name, field) in enumerate(find(data).items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        good, bad = folder / f"good{ending}", folder / f"bad{ending}"
        good.write_bytes(packed(picture("PNG") if ending == ".2.png" else data))
        bad.write_bytes(packed(field.set(data, VALUES[value])))
        check(folder, bad, name, VALUES[value], **({} if ending in (".wav", ".flac") else {"image_size": 8}))


DICOM_NUMBERS = {
    "SamplesPerPixel": 0x0002,
    "Rows": 0x0010,
    "Columns": 0x0011,
    "BitsAllocated": 0x0100,
    "BitsStored": 0x0101,
    "HighBit": 0x0102,
    "PixelRepresentation": 0x0103,
}
"""Elements of group 0028 that are US."""
DICOM_TEXTS = ("NumberOfFrames", "WindowCenter", "WindowWidth", "RescaleSlope", "RescaleIntercept")


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("frames", [2])
def test_numbers_of_dicom_files(tmp_path, frames, value):
    pytest.importorskip("pydicom")
    pixels = noise(frames, 16, 24) if frames > 1 else noise(16, 24)
    tags = {"WindowCenter": 100, "WindowWidth": 200, "RescaleSlope": 1, "RescaleIntercept": 0}
    for name in (*DICOM_TEXTS, *DICOM_NUMBERS):
        folder = tmp_path / name
        write_dicom(folder / "good.dcm", pixels, **tags)
        if name in DICOM_TEXTS:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                write_dicom(folder / "bad.dcm", pixels, **{**tags, name: str(VALUES[value])})
        else:
            data = (folder / "good.dcm").read_bytes()
            place = data.index(struct.pack("<HH2sH", 0x0028, DICOM_NUMBERS[name], b"US", 2)) + 8
            (folder / "bad.dcm").write_bytes(Field(place, "<H").set(data, VALUES[value]))
        check(folder, folder / "bad.dcm", name, VALUES[value], image_size=8)


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("kind", ["JPEG", "JPEG2000"])
def test_sizes_of_compressed_frames(tmp_path, kind, value):
    """Of a frame without rows a decoder took gigabytes."""
    pytest.importorskip("pydicom")
    from pydicom.encaps import encapsulate
    from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit

    pixels, file = noise(16, 24), io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **({"no_jp2": True} if kind == "JPEG2000" else {}))
    frame = file.getvalue()
    find = header_fields.jpeg_fields if kind == "JPEG" else header_fields.jpeg_2000_fields
    for name in ("height", "width"):
        folder = tmp_path / name
        for place, data in (("good", frame), ("bad", find(frame)[name].set(frame, VALUES[value]))):
            dataset = write_dicom(folder / f"{place}.dcm", pixels, WindowCenter=100, WindowWidth=200)
            dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit if kind == "JPEG" else JPEG2000Lossless
            dataset.NumberOfFrames, dataset.PixelData = 1, encapsulate([data + b"\0" * (len(data) % 2)])
            dataset["PixelData"].is_undefined_length = True
            dataset.save_as(folder / f"{place}.dcm", enforce_file_format=True)
        check(folder, folder / "bad.dcm", name, VALUES[value], image_size=8)


@pytest.mark.parametrize("claimed", [-1, 4, 1 << 20, (1 << 31) - 1, 1 << 63])
@pytest.mark.parametrize("compressed", [False, True])
def test_frames_that_are_not_there(tmp_path, compressed, claimed):
    pytest.importorskip("pydicom")
    from pydicom.uid import RLELossless

    dataset = write_dicom(tmp_path / "good.dcm", noise(3, 16, 24), WindowCenter=100, WindowWidth=200)
    if compressed:
        dataset.compress(RLELossless)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom warns of numbers of many digits
        dataset.NumberOfFrames = str(claimed)
        dataset.save_as(tmp_path / "bad.dcm", enforce_file_format=True)
    assert f"promises {claimed} frames" in outcome(tmp_path)
    kept = Opening(skip_unreadable=True).source(str(tmp_path))
    assert [entry.file for entry in kept.left_out] == ["bad.dcm"]


SHAPES = [(-1, 16, 24), (0, 16, 24), (1 << 20, 16, 24), ((1 << 31) - 1, 16, 24), (1 << 63, 16, 24), (3, 1 << 63, 24)]
SHAPES += [(-3, -16, 24), (1 << 32, 1 << 32, 1 << 32), (3, 1 << 31, 1 << 31)]
"""The last but one has a product that is 0 in 64 bits."""


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("packed", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_shapes_of_npz_files(tmp_path, shape, packed):
    path = tmp_path / "bad.npz"
    text = repr({"descr": "|u1", "fortran_order": False, "shape": shape}).encode().ljust(117) + b"\n"
    with zipfile.ZipFile(path, "w", packed) as archive:
        member = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + noise(3, 16, 24).tobytes()
        archive.writestr("images.npy", member)
    assert "bad.npz" in outcome(path)


@pytest.mark.parametrize("value", VALUES)
def test_numbers_of_npz_files(tmp_path, value):
    """Of the zip file: sizes and places of its members, in both of its directories."""
    np.savez(tmp_path / "good.npz", images=noise(3, 16, 24))
    data = (tmp_path / "good.npz").read_bytes()
    for name, field in header_fields.zip_fields(data).items():
        path = tmp_path / f"{name}.npz"
        path.write_bytes(field.set(data, VALUES[value]))
        said = outcome(path)
        assert not said or path.name in said


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if min(shape) >= 0 and max(shape) < 1 << 63])
@pytest.mark.parametrize("settings", [{}, {"chunks": (1, 1, 24)}])
def test_shapes_of_hdf5_files(tmp_path, shape, settings):
    """Datasets of which nothing was written."""
    path = tmp_path / "bad.h5"
    with h5py.File(path, "w") as file:
        try:
            file.create_dataset("images", shape, np.uint8, **settings)
        except (ValueError, OSError):
            pytest.skip("HDF5 itself refuses to write this")
    assert "bad.h5" in outcome(path)


@pytest.mark.parametrize("value", VALUES)
def test_numbers_of_idx_files(tmp_path, value):
    data = struct.pack(">I3I", 0x803, 3, 16, 24) + noise(3, 16, 24).tobytes()
    for axis in range(3):
        for ending, pack in {"": bytes, ".gz": gzip.compress}.items():
            path = tmp_path / f"{axis}{ending}" / f"train-images-idx3-ubyte{ending}"
            path.parent.mkdir()
            path.write_bytes(pack(Field(4 + 4 * axis, ">I").set(data, VALUES[value])))
            assert path.name in outcome(path.parent)


@pytest.mark.parametrize("header", ["{'shape': (12, 8", "{'descr': '|u1', 'fortran_order': False, 'shape': (3L, ("])
def test_headers_of_npz_files_that_are_cut_off(tmp_path, header):
    path = tmp_path / "bad.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode())
    assert "bad.npz" in outcome(path)
