"""Files with a text in every place that holds no sample: metadata, unused bytes and spare bits, each text in one place.

A `Planter` gives every place a text of its own, so that a search of what was published names the place that leaked, and
a search of the data shows that nothing was planted in vain.
"""

from __future__ import annotations

import gzip
import io
import struct
import wave
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256

import nibabel
import numpy as np
import soundfile
from PIL import Image, PngImagePlugin

PATIENT = "Muster^Erika"


@dataclass(frozen=True)
class Planter:
    """Gives texts to places.

    Attributes:
        planted: by place, what to search for.
    """

    planted: dict[str, bytes] = field(default_factory=dict)

    def text(self, place: str) -> str:
        """The patient's name, and what tells the place."""
        text = f"{PATIENT} {sha256(place.encode()).hexdigest()[:10]}"
        self.planted[place] = text.encode()
        return text

    def bytes(self, place: str, size: int | None = None) -> bytes:
        """The text as bytes, or so many letters that occur nowhere else."""
        text = self.text(place).encode()
        if size is not None:
            digest = sha256(place.encode()).hexdigest().upper().encode()
            text = self.planted[place] = (digest * (1 + size // len(digest)))[:size]
        return text


def saved(pixels: np.ndarray, kind: str, **extras: object) -> bytes:
    """An image as Pillow writes it."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **extras)
    return file.getvalue()


def exif(text: str) -> Image.Exif:
    found = Image.Exif()
    found[0x010E] = found[0x013B] = text
    return found


def chunk(kind: bytes, body: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(pixels: np.ndarray, plant: Planter) -> bytes:
    """Chunks that Pillow knows, chunks that it does not know, and bytes behind the end."""
    notes = PngImagePlugin.PngInfo()
    notes.add_text("Patient", plant.text("PNG tEXt"))
    notes.add_text("Comment", plant.text("PNG zTXt") * 9, zip=True)
    notes.add_itxt("XML:com.adobe.xmp", plant.text("PNG iTXt") * 9, zip=True)
    profile = plant.bytes("PNG iCCP") * 9
    data = saved(pixels, "PNG", pnginfo=notes, exif=exif(plant.text("PNG eXIf")), icc_profile=profile)
    head, end = data[:33], data[33:]
    more = chunk(b"sPLT", plant.bytes("PNG sPLT") + b"\0\x08")
    more += chunk(b"tIME", plant.bytes("PNG tIME", 7)) + chunk(b"paTi", plant.bytes("PNG private chunk"))
    return head + more + end + plant.bytes("PNG behind the end")


def png_palette(pixels: np.ndarray, plant: Planter) -> bytes:
    """Entries of the palette that no pixel has."""
    image = Image.fromarray((pixels[..., 0] % 64).astype(np.uint8), "P")
    text = plant.bytes("PNG unused palette entries")
    image.putpalette(bytes(range(192)) + text.ljust(192, b"\0"))
    file = io.BytesIO()
    image.save(file, "PNG", bits=8)
    return file.getvalue()


def segment(marker: int, body: bytes) -> bytes:
    """A segment of a JPEG file or codestream."""
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def jpeg(pixels: np.ndarray, plant: Planter, where: str = "JPEG") -> bytes:
    """Markers, and bytes behind the end."""
    data = saved(pixels, "JPEG", quality=95)
    markers = segment(0xFE, plant.bytes(f"{where} COM"))
    markers += segment(0xE1, b"Exif\0\0" + exif(plant.text(f"{where} Exif")).tobytes()[6:])
    markers += segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + plant.bytes(f"{where} XMP"))
    markers += segment(0xE2, b"ICC_PROFILE\0\1\1" + plant.bytes(f"{where} ICC profile"))
    markers += segment(0xED, b"Photoshop 3.0\0" + plant.bytes(f"{where} APP13"))
    markers += segment(0xEF, plant.bytes(f"{where} APP15"))
    return data[:2] + markers + data[2:] + plant.bytes(f"{where} behind the end")


def tiff(pixels: np.ndarray, plant: Planter) -> bytes:
    """Tags, texts in tags that are no texts, and bytes behind the end."""
    tags = {
        **{269: "DocumentName", 270: "ImageDescription", 271: "Make", 272: "Model", 285: "PageName", 305: "Software"},
        **{306: "DateTime", 315: "Artist", 316: "HostComputer", 33432: "Copyright"},
    }
    info = {number: plant.text(f"TIFF {name}") for number, name in tags.items()}
    binary = {700: "XMP", 33723: "IPTC", 34377: "Photoshop", 34675: "ICC profile", 65000: "private tag"}
    directory = Image.Exif()
    for number, text in info.items():
        directory[number] = text
    for number, name in binary.items():
        directory[number] = plant.bytes(f"TIFF {name}")
    data = saved(pixels, "TIFF", compression="tiff_lzw", tiffinfo=directory)
    return data + plant.bytes("TIFF behind the end")


def webp(pixels: np.ndarray, plant: Planter) -> bytes:
    """Metadata, a chunk that nobody knows, and bytes behind the end."""
    texts = {"exif": exif(plant.text("WebP EXIF")), "xmp": plant.bytes("WebP XMP")}
    data = saved(pixels, "WEBP", lossless=True, icc_profile=plant.bytes("WebP ICCP"), **texts)
    body = riff_chunk(b"paTi", plant.bytes("WebP unknown chunk"))
    return with_chunks(data, body) + plant.bytes("WebP behind the end")


def bmp(pixels: np.ndarray, plant: Planter) -> bytes:
    """A gap before the pixels, and bytes behind the end."""
    data, gap = saved(pixels, "BMP"), plant.bytes("BMP gap")
    start = struct.unpack_from("<I", data, 10)[0]
    header = data[:10] + struct.pack("<I", start + len(gap)) + data[14:start]
    return header + gap + data[start:] + plant.bytes("BMP behind the end")


IMAGES: list[tuple[str, Callable[[np.ndarray, Planter], bytes]]] = [
    *((".png", png), (".png", png_palette), (".jpg", jpeg), (".tif", tiff), (".webp", webp), (".bmp", bmp)),
]
"""Kinds of image files: ending, and what writes them from pixels uint8 [H, W, 3]."""


def riff_chunk(kind: bytes, body: bytes) -> bytes:
    return kind + len(body).to_bytes(4, "little") + body + b"\0" * (len(body) % 2)


def with_chunks(data: bytes, more: bytes) -> bytes:
    """A RIFF file with more chunks at its end."""
    whole = data + more
    return whole[:4] + (len(whole) - 8).to_bytes(4, "little") + whole[8:]


def wav(samples: np.ndarray, plant: Planter) -> bytes:
    """Chunks, bytes behind the format, and bytes behind the end."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setparams((1, 2, 8000, 0, "NONE", ""))
        out.writeframes(samples.tobytes())
    data = file.getvalue()
    extra = plant.bytes("WAV behind the format")
    extra += b"\0" * (len(extra) % 2)
    data = data[:16] + struct.pack("<I", 16 + len(extra)) + data[20:36] + extra + data[36:]
    chunks = riff_chunk(b"LIST", b"INFO" + riff_chunk(b"IART", plant.bytes("WAV LIST INFO")))
    chunks += riff_chunk(b"LIST", b"adtl" + riff_chunk(b"labl", bytes(4) + plant.bytes("WAV LIST adtl")))
    for kind in (b"bext", b"iXML", b"id3 ", b"_PMX", b"JUNK", b"cart", b"paTi"):
        chunks += riff_chunk(kind, plant.bytes(f"WAV {kind.decode()}"))
    return with_chunks(data, chunks) + plant.bytes("WAV behind the end")


def flac(samples: np.ndarray, plant: Planter) -> bytes:
    """Blocks of metadata."""
    file = io.BytesIO()
    soundfile.write(file, samples, 8000, format="FLAC", subtype="PCM_16")
    data = file.getvalue()
    blocks = b""
    comment = plant.bytes("FLAC comment")
    vorbis = struct.pack("<I", len(comment)) + comment + struct.pack("<II", 1, len(comment)) + comment
    description = plant.bytes("FLAC picture")
    picture = struct.pack(">III", 3, 0, len(description)) + description + bytes(20)
    for kind, body in (
        (4, vorbis),
        (2, b"PATI" + plant.bytes("FLAC application")),
        (1, plant.bytes("FLAC padding")),
        (6, picture),
    ):
        blocks += bytes([kind]) + len(body).to_bytes(3, "big") + body
    return data[:42] + blocks + data[42:]


RECORDINGS: list[tuple[str, Callable[[np.ndarray, Planter], bytes]]] = [(".wav", wav), (".flac", flac)]
"""Kinds of recordings: ending, and what writes them from samples int16 [t]."""


def volume(values: np.ndarray, plant: Planter, kind: type, *, extended: bool) -> bytes:
    """A NIfTI volume with texts in its header, in numbers that do not count, in an extension, and around the voxels."""
    image = kind(values, np.eye(4))
    where, header = kind.__name__.removesuffix("Image"), image.header
    texts = {"descrip": 80, "aux_file": 24, "intent_name": 16, "data_type": 10, "db_name": 18, "unused_str": 15}
    for name, size in texts.items():
        if name in header:
            header[name] = plant.bytes(f"{where} {name}", size - 1)
    if extended:
        text = plant.bytes(f"{where} extension") * 9
        header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", text))
    raw = bytearray(image.to_bytes())
    fields = header.structarr.dtype.fields
    for name in ("qform_code", "sform_code"):
        dtype, start = fields[name][:2]
        raw[start : start + dtype.itemsize] = bytes(dtype.itemsize)
    numbers = ["intent_p1", "intent_p2", "intent_p3", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y"]
    for name in (*numbers, "srow_x", "srow_y", "srow_z", "extents", "glmax", "glmin"):
        if name in fields:
            dtype, start = fields[name][:2]
            raw[start : start + dtype.itemsize] = plant.bytes(f"{where} {name}", dtype.itemsize)
    for name in ("dim", "pixdim"):
        dtype, start = fields[name][:2]
        size = dtype.itemsize // 2
        raw[start + size : start + 2 * size] = plant.bytes(f"{where} unused {name}", size)
    dtype, start = fields["vox_offset"][:2]
    begin = int(np.frombuffer(raw[start : start + dtype.itemsize], dtype.base)[0])
    # What stands there is read as an extension where the header says that there are some.
    gap = b"" if extended else plant.bytes(f"{where} before the voxels").ljust(48, b"\0")
    raw[start : start + dtype.itemsize] = np.array(begin + len(gap), dtype.base).tobytes()
    return bytes(raw[:begin]) + gap + bytes(raw[begin:]) + plant.bytes(f"{where} behind the voxels")


def packed_volume(values: np.ndarray, plant: Planter) -> bytes:
    """A gzip file with a name and a comment in its own header."""
    data = gzip.compress(volume(values, Planter(), nibabel.Nifti1Image, extended=True))
    texts = plant.bytes("gzip name") + b"\0" + plant.bytes("gzip comment") + b"\0"
    return data[:3] + bytes([data[3] | 0x18]) + data[4:10] + texts + data[10:]


VOLUMES: list[tuple[str, Callable[[np.ndarray, Planter], bytes]]] = [
    (".nii", lambda values, plant: volume(values, plant, nibabel.Nifti1Image, extended=True)),
    (".nii", lambda values, plant: volume(values, plant, nibabel.Nifti2Image, extended=False)),
    (".nii.gz", packed_volume),
]
"""Kinds of volumes: ending, and what writes them from values int16 [X, Y, Z]."""
