"""Searching every byte of a folder for what must not be in it, also inside what is packed."""

from __future__ import annotations

import base64
import gzip
import io
import re
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import h5py
import numpy as np
import pydicom
from PIL import Image

Blob = tuple[str, bytes]
"""Where bytes are, and the bytes."""


def leaks(root: Path, needles: Mapping[str, bytes]) -> set[tuple[str, str]]:
    """(name of the needle, place) of all that is found under a folder, or in a file."""
    blobs = list(contents(root))
    return {(name, place) for name, needle in needles.items() for place, data in blobs if needle in data}


def contents(root: Path) -> Iterator[Blob]:
    """The name and the bytes of every file, and of what is packed in it, however deep."""
    files = sorted(root.rglob("*")) if root.is_dir() else [root]
    for path in files:
        place = path.relative_to(root).as_posix() if root.is_dir() else path.name
        yield f"the name {place}", place.encode(errors="surrogateescape")
        if path.is_file():
            yield from unpacked(place, path.read_bytes())


def unpacked(place: str, data: bytes) -> Iterator[Blob]:
    """These bytes, and all that is in them."""
    yield place, data
    for (offset, magic), unpack in PACKED.items():
        if data[offset : offset + len(magic)] == magic:
            for inner, found in unpack(data):
                yield from unpacked(f"{place}!{inner}", found)
    if data.lstrip()[:9].lower() == b"<!doctype":
        for number, match in enumerate(re.finditer(rb"base64,([A-Za-z0-9+/=]+)", data)):
            yield from unpacked(f"{place}!data-{number}", base64.b64decode(match[1]))


def _of_image(data: bytes) -> Iterator[Blob]:
    """Pixels as rows of H, W, C and as planes, and all that Pillow finds beside them."""
    with warnings.catch_warnings(), Image.open(io.BytesIO(data)) as image:
        warnings.simplefilter("ignore")
        pixels = np.asarray(image)
        yield "pixels", b"pixels " + pixels.tobytes()
        if pixels.ndim == 3:
            yield "planes", b"planes " + pixels.transpose(2, 0, 1).tobytes()
        yield "info", f"info {image.info} {dict(image.getexif())} {getattr(image, 'text', '')}".encode()


def _of_png(data: bytes) -> Iterator[Blob]:
    """Also chunks that Pillow does not tell of."""
    place = 8
    while place + 8 <= len(data):
        size, kind = int.from_bytes(data[place : place + 4]), data[place + 4 : place + 8]
        body, place = data[place + 8 : place + 8 + size], place + 12 + size
        if kind in (b"zTXt", b"iTXt", b"iCCP"):
            for start in (index + 1 for index, byte in enumerate(body) if byte == 0):
                try:
                    yield kind.decode(), b"text " + zlib.decompress(body[start:].lstrip(b"\0"))
                except zlib.error:
                    continue
    yield from _of_image(data)


def _of_zip(data: bytes) -> Iterator[Blob]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for name in archive.namelist():
            yield name, archive.read(name)


def _of_tar(data: bytes) -> Iterator[Blob]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for member in archive.getmembers():
            if (file := archive.extractfile(member)) is not None:
                yield member.name, file.read()


def _of_gzip(data: bytes) -> Iterator[Blob]:
    yield "inflated", gzip.decompress(data)


def _of_hdf5(data: bytes) -> Iterator[Blob]:
    """Datasets decoded, their names, and all attributes."""
    found: list[Blob] = []

    def visit(name: str, thing: h5py.Dataset | h5py.Group) -> None:
        found.append((f"{name} attributes", f"{name} {dict(thing.attrs)}".encode()))
        if isinstance(thing, h5py.Dataset) and not thing.is_virtual:
            found.append((name, b"data " + np.asarray(thing[()]).tobytes()))

    with h5py.File(io.BytesIO(data), "r") as file:
        visit("root", file)
        file.visititems(visit)
    return iter(found)


def _of_dicom(data: bytes) -> Iterator[Blob]:
    """All bytes before they were deflated, and what stands in the bits above those that are stored."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(io.BytesIO(data))
        yield "elements", f"elements {list(dataset.iterall())}".encode()
        if dataset.get("BitsAllocated") == 16 and not dataset.file_meta.TransferSyntaxUID.is_compressed:
            words = np.frombuffer(dataset.PixelData[: len(dataset.PixelData) // 2 * 2], "<u2")
            spare = (words >> dataset.BitsStored).astype(np.uint8)
            yield (
                "bits",
                b"bits " + (spare[: len(spare) // 2 * 2].reshape(-1, 2) * [16, 1]).sum(1).astype("u1").tobytes(),
            )


PACKED: Mapping[tuple[int, bytes], Callable[[bytes], Iterator[Blob]]] = {
    (0, b"\x89PNG\r\n\x1a\n"): _of_png,
    (0, b"\xff\xd8\xff"): _of_image,
    (0, b"II*\0"): _of_image,
    (0, b"BM"): _of_image,
    (8, b"WEBP"): _of_image,
    (0, b"PK\x03\x04"): _of_zip,
    (257, b"ustar"): _of_tar,
    (0, b"\x1f\x8b"): _of_gzip,
    (0, b"\x89HDF\r\n\x1a\n"): _of_hdf5,
    (128, b"DICM"): _of_dicom,
}
"""By the bytes that tell a format, and where they stand."""
