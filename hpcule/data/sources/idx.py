"""Folders with IDX files, the format of MNIST (described on its page and in Fashion-MNIST's)."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np

from hpcule.config.errors import DataError, one_line
from hpcule.data.source import Source
from hpcule.data.sources.array import Array, ArraySource, Stream, byte_count, spool

_PREFIXES = {"train": "train", "test": "t10k"}
_BYTES = np.dtype(np.uint8)


def idx_splits(folder: Path) -> tuple[str, ...]:
    """Splits whose images lie in the folder; none of them if it holds no IDX files."""
    return tuple(split for split in _PREFIXES if _find(folder, split, "images-idx3-ubyte"))


def open_idx(folder: Path, split: str, name: str | None = None) -> Source:
    """Open `train-` or `t10k-images-idx3-ubyte` and its labels in the same folder, if any; each file may end in `.gz`.

    Raises:
        DataError: a file is damaged or holds something else.
    """
    images_file = _find(folder, split, "images-idx3-ubyte")
    labels_file = _find(folder, split, "labels-idx1-ubyte")
    if images_file is None:
        raise DataError(f"{folder} holds no {_PREFIXES[split]}-images-idx3-ubyte (.gz)")
    images = _read(images_file, dimensions=3)
    labels = None if labels_file is None else _read(labels_file, dimensions=1)
    name = name or one_line(folder.resolve().name)
    return ArraySource(images, labels, name=name, kind="idx", split=split, where=str(images_file))


def _find(folder: Path, split: str, what: str) -> Path | None:
    plain = folder / f"{_PREFIXES[split]}-{what}"
    return next((path for path in (plain, plain.with_name(f"{plain.name}.gz")) if path.is_file()), None)


def _read(path: Path, dimensions: int) -> Array:
    try:
        if path.suffix == ".gz":
            with gzip.open(path) as stream:
                shape = _read_header(stream, path, dimensions)
                return spool(stream, _BYTES, shape, "C", str(path))
        with path.open("rb") as stream:
            shape = _read_header(stream, path, dimensions)
            first = stream.tell()
        size, expected = path.stat().st_size, first + byte_count(_BYTES, shape)
        if size != expected:
            raise DataError(f"{path} is {size} bytes, its header says {expected}; get the file again")
        return np.memmap(path, _BYTES, "r", first, shape)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} is damaged ({error}); get the file again") from None


def _read_header(stream: Stream, path: Path, dimensions: int) -> tuple[int, ...]:
    """Two zero bytes, the type (8: unsigned bytes), the number of dimensions, and each length in 32 bits."""
    header = stream.read(4 + 4 * dimensions)
    if len(header) < 4 + 4 * dimensions or header[:4] != bytes((0, 0, 8, dimensions)):
        seen = header[:4].hex(" ") or "nothing"
        raise DataError(
            f"{path} begins with {seen}; IDX of unsigned bytes [{dimensions}] begins with 00 00 08 0{dimensions}"
        )
    shape = tuple(int(length) for length in np.frombuffer(header, ">u4", dimensions, 4))
    if 0 in shape:
        raise DataError(f"{path}: no samples (its header says {list(shape)})")
    return shape
