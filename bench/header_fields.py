"""Where the numbers of a file's header are, and the same file with each of them set to what no file can mean."""

from __future__ import annotations

import gzip
import io
import itertools
import re
import struct
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

VALUES = {
    "negative": -1,
    "zero": 0,
    "one": 1,
    "2^20": 1 << 20,
    "2^31-1": (1 << 31) - 1,
    "2^63-1": (1 << 63) - 1,
    "2^63": 1 << 63,
}


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


Find = Callable[[bytes], dict[str, Field]]
Vary = Callable[[bytes], Iterator[bytes]]
"""A function that yields a file with one number after the other changed, everything else as it is."""


def varied(find: Find) -> Vary:
    """Each field that is found, with each of the values."""
    return lambda data: (
        field.set(data, value) for field, value in itertools.product(find(data).values(), VALUES.values())
    )


def unpacked(vary: Vary) -> Vary:
    """The same behind gzip."""
    return lambda data: (gzip.compress(changed, 1, mtime=0) for changed in vary(gzip.decompress(data)))


def varied_text(data: bytes) -> Iterator[bytes]:
    """Every number of a text, wherever it stands alone."""
    for found in re.finditer(rb"(?<![\w.])-?\d+(\.\d+)?(e[-+]?\d+)?(?![\w.])", data):
        for value in VALUES.values():
            yield data[: found.start()] + str(value).encode() + data[found.end() :]


def words(stop: int, *codes: str) -> Find:
    """Whatever may be a number in the first bytes, for formats whose numbers have no fixed places."""

    def find(data: bytes) -> dict[str, Field]:
        sizes = [(code, struct.calcsize(code)) for code in codes]
        return {
            f"{code} at {offset}": Field(offset, code)
            for code, size in sizes
            for offset in range(0, min(stop, len(data)) - size + 1, size)
        }

    return find


def tiff_fields(data: bytes) -> dict[str, Field]:
    (first,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, first)
    fields = {"first directory": Field(4, "<I"), "entries": Field(first, "<H")}
    names = {256: "width", 257: "height", 258: "bits", 277: "samples", 278: "rows a strip", 273: "place", 279: "bytes"}
    for entry in range(first + 2, first + 2 + 12 * count, 12):
        tag, kind = struct.unpack_from("<HH", data, entry)
        if tag in names:
            fields[f"count of {names[tag]}"] = Field(entry + 4, "<I")
            fields[names[tag]] = Field(entry + 8, "<H" if kind == 3 else "<I")
    return fields


def jpeg_fields(data: bytes, start: int = 0) -> dict[str, Field]:
    frame = data.index(b"\xff\xc0", start)
    return {
        "length": Field(frame + 2, ">H"),
        "bits": Field(frame + 4, "B"),
        "height": Field(frame + 5, ">H"),
        "width": Field(frame + 7, ">H"),
        "channels": Field(frame + 9, "B"),
    }


def jpeg_2000_fields(data: bytes) -> dict[str, Field]:
    """The sizes of image and tiles, from the marker SIZ, and the number of components."""
    size = data.index(b"\xff\x51") + 6
    sides = ("width", "height", "left", "top", "tile width", "tile height", "tile left", "tile top")
    fields = {name: Field(size + 4 * number, ">I") for number, name in enumerate(sides)}
    return {**fields, "components": Field(size + 32, ">H"), "bits": Field(size + 34, "B")}


def png_fields(data: bytes) -> dict[str, Field]:
    places = {"length": (8, ">I"), "width": (16, ">I"), "height": (20, ">I"), "bits": (24, "B"), "IDAT": (33, ">I")}
    return {name: Field(*place) for name, place in places.items()}


def apng_fields(data: bytes) -> dict[str, Field]:
    return {"frames": Field(data.index(b"acTL") + 4, ">I")}


def bmp_fields(data: bytes) -> dict[str, Field]:
    places = {"offset": 10, "header": 14, "width": 18, "rows": 22, "bytes": 34, "colours": 46}
    return {"bits": Field(28, "<H"), **{name: Field(place, "<I") for name, place in places.items()}}


def webp_fields(data: bytes) -> dict[str, Field]:
    return {"bytes": Field(4, "<I"), "chunk": Field(16, "<I"), "sizes": Field(21, "<I")}


def wav_fields(data: bytes) -> dict[str, Field]:
    places = {"RIFF": (4, "<I"), "format chunk": (16, "<I"), "channels": (22, "<H"), "rate": (24, "<I")}
    places |= {"block": (32, "<H"), "bits": (34, "<H"), "data": (data.index(b"data") + 4, "<I")}
    return {name: Field(*place) for name, place in places.items()}


def flac_fields(data: bytes) -> dict[str, Field]:
    return {"block": Field(8, ">H"), "samples": Field(22, ">I")}


def nifti_fields(version: int) -> Find:
    dim, code, kind, offset = (40, "<h", 70, (108, "<I")) if version == 1 else (16, "<q", 12, (168, "<q"))
    step = struct.calcsize(code)
    fields = {f"dim[{axis}]": Field(dim + step * axis, code) for axis in range(6)}
    fields |= {"type": Field(kind, "<h"), "bits": Field(kind + 2, "<h"), "at": Field(*offset)}
    return lambda data: fields


def idx_fields(data: bytes) -> dict[str, Field]:
    return {f"axis {axis}": Field(4 + 4 * axis, ">I") for axis in range(3)}


def zip_fields(data: bytes) -> dict[str, Field]:
    """Sizes and places of the first member, in both directories of a zip file, and of the second directory."""
    central, end = data.index(b"PK\1\2"), data.rindex(b"PK\5\6")
    places = {"packed": (18, "<I"), "size": (22, "<I"), "name": (26, "<H"), "extra": (28, "<H")}
    fields = {f"local {name}": Field(*place) for name, place in places.items()}
    places = {"packed": (20, "<I"), "size": (24, "<I"), "name": (28, "<H"), "place": (42, "<I")}
    fields |= {f"central {name}": Field(central + at, code) for name, (at, code) in places.items()}
    return fields | {
        "entries": Field(end + 10, "<H"),
        "length": Field(end + 12, "<I"),
        "directory": Field(end + 16, "<I"),
    }


def varied_npz(data: bytes) -> Iterator[bytes]:
    """The numbers of the zip file, and those of the shape of every array."""
    yield from varied(zip_fields)(data)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {info: archive.read(info) for info in archive.infolist()}
    for info, member in members.items():
        for changed in varied_npy(member):
            file = io.BytesIO()
            with zipfile.ZipFile(file, "w", info.compress_type) as out:
                for other, content in members.items():
                    out.writestr(other, changed if other is info else content)
            yield file.getvalue()


def varied_npy(data: bytes) -> Iterator[bytes]:
    """The length of a header, and the numbers of its shape; the header is padded as it has to be."""
    yield from varied(lambda data: {"length": Field(8, "<H")})(data)
    (length,) = struct.unpack_from("<H", data, 8)
    text, values = data[10 : 10 + length], data[10 + length :]
    place = text.index(b"'shape'")
    for changed in varied_text(text[place:].rstrip()):
        header = text[:place] + changed
        header += b" " * (-(len(header) + 11) % 64) + b"\n"
        yield data[:8] + struct.pack("<H", len(header)) + header + values


def varied_dicom(data: bytes) -> Iterator[bytes]:
    """Length and, where it is a number, value of every element: binary in its place, a text with its length."""
    for at, kind, place, size in _elements(data):
        long = place - at == 12
        fields = {"length": Field(place - (4 if long else 2), "<I" if long else "<H")}
        code = {b"US": "<H", b"SS": "<H", b"UL": "<I", b"SL": "<I"}.get(kind)
        if code is not None and size == struct.calcsize(code):
            fields["value"] = Field(place, code)
        yield from varied(lambda data, fields=fields: fields)(data)  # type: ignore[misc]
        if kind in (b"IS", b"DS"):
            for value in VALUES.values():
                text = str(value).encode()
                text += b" " * (len(text) % 2)
                length = struct.pack("<H", len(text))
                yield data[: place - 2] + length + text + data[place + size :]


def _elements(data: bytes) -> Iterator[tuple[int, bytes, int, int]]:
    """Place, representation, place of the value and length of each element of explicit, little-endian DICOM."""
    at = 132
    while at + 8 <= len(data):
        kind = data[at + 4 : at + 6]
        if kind in (b"OB", b"OW", b"SQ", b"UN", b"UT", b"OF", b"OD"):
            place, (size,) = at + 12, struct.unpack_from("<I", data, at + 8)
        else:
            place, (size,) = at + 8, struct.unpack_from("<H", data, at + 6)
        yield at, kind, place, size
        if size == 0xFFFFFFFF:
            return
        at = place + size


def distinct(data: bytes, changed: Iterable[bytes]) -> list[bytes]:
    """Files that differ from the valid one and from each other."""
    return [one for one in dict.fromkeys(changed) if one != data]
