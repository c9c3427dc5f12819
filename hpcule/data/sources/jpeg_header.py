"""How many pixels a stream of JPEG, JPEG-LS or JPEG 2000 states, before a decoder believes it."""

from __future__ import annotations

import struct
from typing import BinaryIO

_START, _START_2000 = b"\xff\xd8", b"\xff\x4f\xff\x51"
_FRAMES = {*range(0xFFC0, 0xFFD0), 0xFFF7} - {0xFFC4, 0xFFC8, 0xFFCC}
"""Markers of a frame's header (ITU-T T.81, table B.1, and T.87 for JPEG-LS)."""
_FILL = 0xFFFF


def stated_size(file: BinaryIO) -> tuple[int, int] | None:
    """Rows and columns that the stream at the file's position states; None where none begins there.

    Zero rows would mean that a marker behind the pixels states them; decoders then take memory until there is none.

    Raises:
        ValueError: the stream ends before it states any.
    """
    try:
        start = file.read(4)
        if start == _START_2000:
            width, height, left, top = struct.unpack(">4xIIII", file.read(20))
            return height - top, width - left
        if not start.startswith(_START):
            return None
        file.seek(2 - len(start), 1)
        return _frame_size(file)
    except struct.error:
        raise ValueError("a compressed frame is cut off") from None


def _frame_size(file: BinaryIO) -> tuple[int, int]:
    while True:
        marker, length = struct.unpack(">HH", file.read(4))
        if marker in _FRAMES:
            rows, columns = struct.unpack(">xHH", file.read(5))
            return rows, columns
        file.seek(-3 if marker == _FILL else max(length - 2, 0), 1)
