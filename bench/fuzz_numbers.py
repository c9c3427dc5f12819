"""Which numbers the header of each parser's valid file has."""

from __future__ import annotations

from fuzz_sources import Parser
from header_fields import (
    Vary,
    bmp_fields,
    distinct,
    flac_fields,
    idx_fields,
    jpeg_2000_fields,
    jpeg_fields,
    nifti_fields,
    png_fields,
    tiff_fields,
    unpacked,
    varied,
    varied_dicom,
    varied_npy,
    varied_npz,
    varied_text,
    wav_fields,
    words,
    zip_fields,
)

HDF5 = varied(words(1024, "<I", "<Q"))
"""A file of HDF5 has its numbers in structures that point to each other, the first of them in the first KiB."""
NUMBERS: dict[str, list[Vary]] = {
    "npz": [varied_npz],
    "npz, compressed": [varied_npz],
    "HDF5": [HDF5],
    "HDF5, chunked": [HDF5],
    "IDX": [varied(idx_fields)],
    "IDX, gzip": [unpacked(varied(idx_fields))],
    "PNG": [varied(png_fields)],
    "JPEG": [varied(jpeg_fields)],
    "TIFF": [varied(tiff_fields)],
    "WebP": [varied(words(40, "<H", "<I"))],
    "BMP": [varied(bmp_fields)],
    "PNG, excluded": [varied(png_fields)],
    "WAV": [varied(wav_fields)],
    "WAV, 24 bits": [varied(words(92, "<H", "<I"))],
    "WAV, excluded": [varied(wav_fields)],
    "FLAC": [varied(flac_fields)],
    "DICOM": [varied_dicom],
    "DICOM, several frames": [varied_dicom],
    "DICOM, RLE": [varied_dicom],
    "DICOM, JPEG": [varied_dicom, varied(jpeg_fields)],
    "DICOM, JPEG 2000": [varied_dicom, varied(jpeg_2000_fields)],
    "list of Pets": [varied_text],
    "MAT-file": [varied(words(256, "<H", "<I"))],
    "MAT-file, compressed": [varied(words(256, "<H", "<I"))],
    "NIfTI": [varied(nifti_fields(1))],
    "NIfTI-2": [varied(nifti_fields(2))],
    "NIfTI, gzip": [unpacked(varied(nifti_fields(1)))],
    "shard": [HDF5],
    "shard, signed": [HDF5],
    "shared": [HDF5],
    "shared, signed": [HDF5],
    "index": [HDF5],
    "index, signed": [HDF5],
    "checkpoint": [varied(zip_fields)],
    "checkpoint, signed": [varied(zip_fields)],
    "records of an export": [varied_text],
    "records of the last export": [varied_text],
    "cache": [varied_npy],
    "weights": [varied(zip_fields)],
    "program of a purifier": [varied(zip_fields)],
}
"""Those of texts are found by themselves; encrypted files, keys, locks and values between ranks have no header."""


def numbers_of(name: str, parser: Parser, data: bytes) -> list[bytes]:
    """The valid file with each number of its header changed, one at a time."""
    ways = NUMBERS.get(name, []) + ([varied_text] if parser.text else [])
    return distinct(data, (changed for vary in ways for changed in vary(data)))
