"""Lists of numbers in MATLAB's MAT-files of version 5, which some data sets name their splits and classes in.

Arrays of real, whole numbers are read and nothing else: no cells, structures and objects, whose depth and size a file
could choose freely. The format: https://www.mathworks.com/help/pdf_doc/matlab/matfile_format.pdf
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hpcule.config.errors import DataError, first_line

Numbers = npt.NDArray[np.int64]

_MOST_BYTES = 2**20
"""Largest size that is read of a file and of an array in it; published lists have some ten kilobytes."""
_HEADER = 128
_ORDER = {b"IM": "<", b"MI": ">"}
_MATRIX, _COMPRESSED = 14, 15
_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_NUMERIC = range(6, 16)
"""Classes of arrays whose elements are stored as plain numbers."""
_COMPLEX = 0x800
_LARGEST = 10**6


def read_lists(path: Path, names: Sequence[str]) -> list[Numbers]:
    """Arrays of a MAT-file as lists of numbers from 1 to a million, int64 [n], in the order of these names.

    Raises:
        DataError: the file is no MAT-file of version 5, is too large or damaged, or lacks an array of such numbers.
    """
    try:
        if not path.is_file():
            raise ValueError("no regular file")
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise ValueError(f"more than {_MOST_BYTES:,} bytes")
        found = dict(_arrays(data, names))
        if absent := [name for name in names if name not in found]:
            raise ValueError(f"it has no array {absent[0]}")
    except (OSError, ValueError, struct.error, zlib.error) as error:
        raise DataError(f"{path} cannot be read as a MAT-file ({first_line(error)}): fetch it again") from None
    return [found[name] for name in names]


def _arrays(data: bytes, names: Sequence[str]) -> Iterator[tuple[str, Numbers]]:
    order = _ORDER.get(data[_HEADER - 2 : _HEADER])
    if order is None:
        raise ValueError("it is not of version 5")
    for kind, content in _elements(data[_HEADER:], order):
        if kind == _COMPRESSED:
            kind, content = next(_elements(_unpacked(content), order), (0, b""))
        if kind == _MATRIX:
            flags, _, name, *values = islice(_elements(content, order), 4)
            if (called := name[1].decode("ascii", "replace")) in names:
                yield called, _numbers(called, flags[1], values, order)


def _elements(data: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """Types and contents of the elements that lie one behind the other."""
    place = 0
    while place < len(data):
        kind, size = struct.unpack_from(f"{order}2I", data, place)
        start, step = place + 8, 8 + size
        if kind >> 16:  # up to four bytes of content lie within the tag
            kind, size = kind & 0xFFFF, kind >> 16
            start, step = place + 4, 8
        if start + size > min(len(data), place + step):
            raise ValueError("it ends too early")
        yield kind, data[start : start + size]
        place += step if kind == _COMPRESSED else step + -step % 8


def _unpacked(content: bytes) -> bytes:
    stream = zlib.decompressobj()
    data = stream.decompress(content, _MOST_BYTES)
    if not stream.eof:
        raise ValueError(f"an array is cut off, or has more than {_MOST_BYTES:,} bytes")
    return data


def _numbers(name: str, flags: bytes, values: Sequence[tuple[int, bytes]], order: str) -> Numbers:
    (kind,) = struct.unpack_from(f"{order}I", flags)
    if kind & 0xFF not in _NUMERIC or kind & _COMPLEX or not values or values[0][0] not in _TYPES:
        raise ValueError(f"{name} is no array of real numbers")
    numbers = np.frombuffer(values[0][1], order + _TYPES[values[0][0]])
    if not len(numbers) or not ((numbers >= 1) & (numbers <= _LARGEST)).all() or (numbers != np.rint(numbers)).any():
        raise ValueError(f"{name} holds other than the whole numbers from 1 to {_LARGEST:,}")
    return numbers.astype(np.int64)
