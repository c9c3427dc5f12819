"""Each number of a header that says how much there is, with values that no file can mean: the file is refused in one
line that names it, left out where that is asked for, or read as it is, and memory stays small."""

from __future__ import annotations

import gzip
import io
import resource
import struct
import tracemalloc
import warnings
import wave
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pytest
from dicoms import noise, write_dicom
from PIL import Image

from hpcule.config.errors import DataError
from hpcule.data.opening import Opening

VALUES = {"negative": -1, "zero": 0, "2^20": 1 << 20, "2^31-1": (1 << 31) - 1, "2^63": 1 << 63}
MEMORY = 64 << 20
"""Largest number of bytes that Python and NumPy may hold, for files of some kilobytes."""
PIXELS = noise(24, 16, 3)


@dataclass(frozen=True)
class Field:
    """A number in a file: where it is, and how it is packed; 2^20 in 16 bits is their largest number."""

    offset: int
    code: str

    def set(self, data: bytes, value: int) -> bytes:
        bits = 8 * struct.calcsize(self.code)
        if value >= 1 << bits:
            value = (1 << bits - 1) - 1 if value % 2 else 1 << bits - 1
        packed = (value % (1 << bits)).to_bytes(bits // 8, "big" if self.code[0] == ">" else "little")
        return data[: self.offset] + packed + data[self.offset + bits // 8 :]


def picture(kind: str, **settings: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, format=kind, **settings)
    return file.getvalue()


def tiff() -> tuple[bytes, dict[str, Field]]:
    data = picture("TIFF")
    (first,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, first)
    fields = {"first directory": Field(4, "<I"), "entries": Field(first, "<H")}
    names = {256: "width", 257: "height", 258: "bits", 277: "samples", 278: "rows a strip", 273: "place", 279: "bytes"}
    for entry in range(first + 2, first + 2 + 12 * count, 12):
        tag, kind = struct.unpack_from("<HH", data, entry)
        if tag in names:
            fields[f"count of {names[tag]}"] = Field(entry + 4, "<I")
            fields[names[tag]] = Field(entry + 8, "<H" if kind == 3 else "<I")
    return data, fields


def jpeg() -> tuple[bytes, dict[str, Field]]:
    data = picture("JPEG")
    frame = data.index(b"\xff\xc0")
    return data, {
        "length": Field(frame + 2, ">H"),
        "bits": Field(frame + 4, "B"),
        "height": Field(frame + 5, ">H"),
        "width": Field(frame + 7, ">H"),
        "channels": Field(frame + 9, "B"),
    }


def png() -> tuple[bytes, dict[str, Field]]:
    places = {"length": (8, ">I"), "width": (16, ">I"), "height": (20, ">I"), "bits": (24, "B"), "IDAT": (33, ">I")}
    return picture("PNG"), {name: Field(*place) for name, place in places.items()}


def apng() -> tuple[bytes, dict[str, Field]]:
    data = picture("PNG", save_all=True, append_images=[Image.fromarray(255 - PIXELS)])
    return data, {"frames": Field(data.index(b"acTL") + 4, ">I")}


def bmp() -> tuple[bytes, dict[str, Field]]:
    places = {"offset": 10, "header": 14, "width": 18, "rows": 22, "bytes": 34, "colours": 46}
    return picture("BMP"), {"bits": Field(28, "<H"), **{name: Field(place, "<I") for name, place in places.items()}}


def webp() -> tuple[bytes, dict[str, Field]]:
    return picture("WEBP", lossless=True), {"bytes": Field(4, "<I"), "chunk": Field(16, "<I"), "sizes": Field(21, "<I")}


def wav() -> tuple[bytes, dict[str, Field]]:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setparams((2, 2, 8000, 0, "NONE", ""))
        out.writeframes(PIXELS.tobytes())
    places = {"RIFF": (4, "<I"), "format chunk": (16, "<I"), "channels": (22, "<H"), "rate": (24, "<I")}
    places |= {"block": (32, "<H"), "bits": (34, "<H"), "data": (40, "<I")}
    return file.getvalue(), {name: Field(*place) for name, place in places.items()}


def flac() -> tuple[bytes, dict[str, Field]]:
    soundfile = pytest.importorskip("soundfile")
    file = io.BytesIO()
    soundfile.write(file, PIXELS.astype(np.int16).reshape(-1, 2) << 6, 8000, format="FLAC")
    return file.getvalue(), {"block": Field(8, ">H"), "samples": Field(22, ">I")}


def nifti(version: int) -> Callable[[], tuple[bytes, dict[str, Field]]]:
    def make() -> tuple[bytes, dict[str, Field]]:
        nibabel = pytest.importorskip("nibabel")
        image = (nibabel.Nifti1Image if version == 1 else nibabel.Nifti2Image)(PIXELS.astype(np.int16), np.eye(4))
        dim, code, kind, offset = (40, "<h", 70, (108, "<I")) if version == 1 else (16, "<q", 12, (168, "<q"))
        step = struct.calcsize(code)
        fields = {f"dim[{axis}]": Field(dim + step * axis, code) for axis in range(6)}
        fields |= {"type": Field(kind, "<h"), "bits": Field(kind + 2, "<h"), "at": Field(*offset)}
        return image.to_bytes(), fields

    return make


FILES: dict[str, Callable[[], tuple[bytes, dict[str, Field]]]] = {
    ".tif": tiff,
    ".jpg": jpeg,
    ".png": png,
    ".2.png": apng,
    ".bmp": bmp,
    ".webp": webp,
    ".wav": wav,
    ".flac": flac,
    ".nii": nifti(1),
    ".2.nii": nifti(2),
    ".nii.gz": nifti(1),
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
    if said and "convert it" not in said:  # what is whole but of another kind is not left out
        kept = Opening(**opening, skip_unreadable=True).source(str(folder))
        assert [entry.file for entry in kept.left_out] == [bad.name]
        assert outcome(folder, **opening, skip_unreadable=True) == ""
    assert said or field not in ARE_SIZES or 0 < value < 1 << 20, f"{field}={value} was taken"


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("ending", FILES)
def test_numbers_of_files(tmp_path, ending, value):
    data, fields = FILES[ending]()
    packed = gzip.compress if ending.endswith(".gz") else bytes
    for number, (name, field) in enumerate(fields.items()):
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
    central, end = data.index(b"PK\1\2"), data.index(b"PK\5\6")
    places = {"packed": (18, "<I"), "size": (22, "<I"), "name": (26, "<H"), "extra": (28, "<H")}
    fields = {f"local {name}": Field(*place) for name, place in places.items()}
    places = {"packed": (20, "<I"), "size": (24, "<I"), "name": (28, "<H"), "place": (42, "<I")}
    fields |= {f"central {name}": Field(central + at, code) for name, (at, code) in places.items()}
    fields |= {"entries": Field(end + 10, "<H"), "length": Field(end + 12, "<I"), "directory": Field(end + 16, "<I")}
    for name, field in fields.items():
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
