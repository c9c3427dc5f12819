"""Readers of published files for the check of an export. They share nothing with the writers and sources but the
libraries that decode: what one of these gets wrong, the others do not."""

from __future__ import annotations

import gzip
import io
import math
import struct
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

import h5py
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

Values = npt.NDArray[Any]

_NIFTI_TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}


class Rows(Protocol):
    """An array in a file, read from its first row to its last."""

    shape: tuple[int, ...]

    def take(self, count: int) -> Values:
        """The next rows."""


class NpyRows:
    """A member of an npz file."""

    def __init__(self, stream: IO[bytes]) -> None:
        np.lib.format.read_magic(stream)
        self.shape, columns_first, self._dtype = np.lib.format.read_array_header_1_0(stream)
        if columns_first:
            raise ValueError("an array is stored column by column")
        self._stream = stream

    def take(self, count: int) -> Values:
        """See `Rows.take`."""
        size = count * math.prod(self.shape[1:]) * self._dtype.itemsize
        return np.frombuffer(self._stream.read(size), self._dtype).reshape(count, *self.shape[1:])


class Hdf5Rows:
    """A dataset of an HDF5 file."""

    def __init__(self, file: h5py.File, name: str) -> None:
        self._dataset, self._next = file[name], 0
        self.shape: tuple[int, ...] = self._dataset.shape

    def take(self, count: int) -> Values:
        """See `Rows.take`."""
        first, self._next = self._next, self._next + count
        rows: Values = self._dataset[first : self._next]
        return rows


@contextmanager
def arrays(path: Path, kind: str) -> Iterator[dict[str, Rows]]:
    """The arrays of a file by name; `kind` is "npz" or "hdf5"."""
    if kind == "npz":
        with zipfile.ZipFile(path) as archive, ExitStack() as stack:
            streams = {name: stack.enter_context(archive.open(name)) for name in archive.namelist()}
            yield {name.removesuffix(".npy"): NpyRows(stream) for name, stream in streams.items()}
        return
    with h5py.File(path, "r", locking=False) as file:
        yield {name: Hdf5Rows(file, name) for name in file}


def picture(data: bytes) -> Values:
    """The channels [C, H, W] of an image file, transparency last."""
    with Image.open(io.BytesIO(data)) as image:
        if (images := getattr(image, "n_frames", 1)) != 1:
            raise ValueError(f"{images} images in one file")
        pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def upright(path: Path) -> Values:
    """The numbers that an image file stores, indices of a palette included, turned as its EXIF data say."""
    with Image.open(path) as image:
        return np.asarray(ImageOps.exif_transpose(image))


class Sound(NamedTuple):
    """Samples int32 [channels, t], aligned left; bits a sample, samples a second."""

    samples: npt.NDArray[np.int32]
    bits: int
    rate: int


def sound(data: bytes) -> Sound:
    """A WAV or FLAC file."""
    if data[:4] == b"fLaC":
        import soundfile

        with soundfile.SoundFile(io.BytesIO(data)) as file:
            bits = 8 if file.subtype == "PCM_S8" else int(file.subtype.removeprefix("PCM_"))
            return Sound(file.read(dtype="int32", always_2d=True).T, bits, file.samplerate)
    chunks, place = {}, 12
    while place + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, place)
        chunks[name] = data[place + 8 : place + 8 + size]
        place += 8 + size + size % 2
    kind, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", chunks[b"fmt "])
    if kind != 1:
        raise ValueError(f"format {kind} is no PCM")
    whole = np.frombuffer(chunks[b"data"], np.uint8).reshape(-1, channels, bits // 8).astype(np.int32)
    signed = whole - 128 if bits == 8 else whole
    shifts = 32 - bits + 8 * np.arange(bits // 8)
    # The last byte overflows into the sign.
    return Sound((signed << shifts).sum(axis=2, dtype=np.int32).T, bits, rate)


class Voxels(NamedTuple):
    """Stored values by their place in space and beyond, and the scale and offset of their unit."""

    values: Values
    scale: tuple[float, float]


def volume(path: Path) -> Voxels:
    """A NIfTI file, version 1 or 2."""
    raw = path.read_bytes()
    data = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    order = "<" if struct.unpack_from("<i", data)[0] in (348, 540) else ">"
    if struct.unpack_from(f"{order}i", data)[0] == 348:
        axes, kind = struct.unpack_from(f"{order}8h", data, 40), struct.unpack_from(f"{order}h", data, 70)[0]
        place, slope, intercept = struct.unpack_from(f"{order}3f", data, 108)
    else:
        axes, kind = struct.unpack_from(f"{order}8q", data, 16), struct.unpack_from(f"{order}h", data, 12)[0]
        place, slope, intercept = struct.unpack_from(f"{order}q2d", data, 168)
    shape = axes[1 : 1 + axes[0]]
    values = np.frombuffer(data, order + _NIFTI_TYPES[kind], math.prod(shape), int(place)).reshape(shape, order="F")
    # The standard: a slope of 0 says that there is no scale.
    return Voxels(values, (slope, intercept) if slope and math.isfinite(slope) else (1.0, 0.0))


def dicom(path: Path) -> Values:
    """Stored values [frames, C, H, W] of a DICOM file, which has to be uncompressed: the bytes of its pixels."""
    from pydicom import dcmread

    dataset: Any = dcmread(path)
    frames, channels = int(dataset.get("NumberOfFrames") or 1), int(dataset.SamplesPerPixel)
    kind = np.dtype(f"<{'i' if dataset.PixelRepresentation else 'u'}{dataset.BitsAllocated // 8}")
    shape = (frames, channels, int(dataset.Rows), int(dataset.Columns))
    values = np.frombuffer(dataset.PixelData, kind, math.prod(shape))
    if channels > 1 and dataset.PlanarConfiguration == 1:
        return values.reshape(shape)
    return values.reshape(frames, *shape[2:], channels).transpose(0, 3, 1, 2)
