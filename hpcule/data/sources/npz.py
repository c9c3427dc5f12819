"""npz files in MedMNIST's layout, mapped and never loaded as a whole."""

from __future__ import annotations

import struct
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np

from hpcule.config.errors import DataError, one_line
from hpcule.data.source import Source
from hpcule.data.sources.array import Array, ArraySource, Order, Stream, byte_count, member_names, splits_of, spool

_LOCAL_HEADER = struct.Struct("<26xHH")
"""Fixed part of a member's local header in a zip file; it ends with the lengths of name and extra field, which follow.
(.ZIP File Format Specification, section 4.3.7.)"""


def npz_splits(path: Path) -> tuple[str, ...]:
    """Splits of an npz file: some of train, val, test, or "all".

    Raises:
        DataError: not an npz file, or one without images.
    """
    with _opened(path) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
        return splits_of(names, str(path))


def open_npz(path: Path, split: str, name: str | None = None) -> Source:
    """Open one split of an npz file: `{split}_images` [n, H, W] or [n, H, W, C], `{split}_labels` [n] or [n, 1], or
    [n, L] of several labels each, `{split}_label_matrix` [n, L], and `{split}_masks` [n, H, W].

    An uncompressed member is mapped where it lies in the file, a compressed one is unpacked to disk first.

    Raises:
        DataError: the file is damaged or holds something else.
    """
    images_name, *others = member_names(split)
    with _opened(path) as archive:
        images = _map_member(path, archive, images_name)
        labels, matrix, masks = (
            _map_member(path, archive, name) if f"{name}.npy" in archive.namelist() else None for name in others
        )
    name, where = name or one_line(path.stem), f"{path} ({split})"
    return ArraySource(images, labels, name=name, kind="npz", split=split, where=where, matrix=matrix, masks=masks)


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise DataError(f"{path} is not a whole npz file ({error}); get or write it again") from None


def _map_member(path: Path, archive: zipfile.ZipFile, member: str) -> Array:
    info, where = archive.getinfo(f"{member}.npy"), f"{path}: {member}"
    if info.flag_bits & 1:
        raise DataError(f"{where} is encrypted; write the file without a password")
    try:
        with archive.open(info) as stream:
            dtype, shape, order = _read_header(stream, where)
            header = stream.tell()
            if header + byte_count(dtype, shape) != info.file_size:
                raise DataError(f"{where} is {info.file_size} bytes, its header says {list(shape)} of {dtype}")
            if 0 in shape or info.compress_type != zipfile.ZIP_STORED:
                return _unpack(stream, dtype, shape, order, where)
        first = _data_offset(path, info) + header
        return np.memmap(path, dtype, "r", first, shape, order)
    except (
        *(OSError, ValueError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError),
        *(SyntaxError, tokenize.TokenError),  # of NumPy's parser of headers
    ) as error:
        # It may quote the file, and a name in it is up to 64 KiB long.
        raise DataError(f"{where} is damaged ({str(error)[:160]}); get or write the file again") from None


def _unpack(stream: Stream, dtype: np.dtype[Any], shape: tuple[int, ...], order: Order, where: str) -> Array:
    # An empty file cannot be mapped.
    return np.empty(shape, dtype) if 0 in shape else spool(stream, dtype, shape, order, where)


def _read_header(stream: IO[bytes], where: str) -> tuple[np.dtype[Any], tuple[int, ...], Order]:
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise DataError(f"{where}: npy format {version[0]}.{version[1]}; plain arrays of numbers are 1.0 or 2.0")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(stream)
    if dtype.hasobject:
        raise DataError(f"{where} contains pickled objects, which can run code when read; save plain arrays of numbers")
    return dtype, shape, "F" if fortran else "C"


def _data_offset(path: Path, info: zipfile.ZipInfo) -> int:
    with path.open("rb") as file:
        file.seek(info.header_offset)
        name, extra = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
    return info.header_offset + _LOCAL_HEADER.size + int(name) + int(extra)
