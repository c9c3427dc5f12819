"""A folder of images given back as it was: same folders, stems and sizes, and a record of every file."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from hpcule.config.errors import StoreError
from hpcule.data.source import Native, Samples, Source
from hpcule.publish.jpeg import JPEG, decode_jpeg, encode_jpeg, what_remains
from hpcule.store.staged import create

LOSSLESS: Mapping[str, tuple[str, Mapping[str, object]]] = {
    ".png": ("PNG", {}),
    ".bmp": ("BMP", {}),
    ".tif": ("TIFF", {"compression": "tiff_lzw"}),
    ".tiff": ("TIFF", {"compression": "tiff_lzw"}),
    ".webp": ("WEBP", {"lossless": True, "exact": True}),
}
"""Endings that stay, with Pillow's format and its settings; all others become .png."""
WITHOUT_ALPHA = (".bmp", *JPEG)

Compare = Callable[[Native, Native], Mapping[str, str]]
"""A function of an image as it was and as it is published that returns columns of its record."""

PublishNative = Callable[[int, Native], Native]
"""A function of a sample's number and its image that returns the image to publish."""


@dataclass(frozen=True)
class Record:
    """What became of a file.

    Attributes:
        split: "train", "val", "test" or "".
        file: its path below the split's folder.
        published: where it is in the copy, or "" where it was left out.
        protected: whether it carries the perturbation.
        note: what else changed, or why it was left out.
        numbers: columns that `Compare` returned for it.
        excluded: whether it is no sample, and was copied next to them.
    """

    split: str
    file: str
    published: str
    protected: bool
    note: str
    numbers: Mapping[str, str]
    excluded: bool = False


WriteSplit = Callable[[Path, str, Source, PublishNative | None, Compare], Iterator[Record]]
"""Writes the files of a split; see `write_collection`."""


def write_collection(
    folder: Path,
    split: str,
    source: Source,
    publish: PublishNative | None,
    compare: Compare,
    jpeg_quality: int | None = None,
) -> Iterator[Record]:
    """Write the images of a split, each at its own size and without its metadata, and yield their records.

    Args:
        folder: the copy.
        split: its sub-folder; "" for none.
        source: whose samples are files of their own sizes.
        publish: what becomes of a sample; None: it stays as it is.
        compare: see `Record.numbers`.
        jpeg_quality: JPEG files stay JPEG, encoded again; None: all are written without loss.

    Raises:
        DataError: an image cannot be read.
        StoreError: a file's name leads out of the folder.
    """
    files = [source.file_name(sample) or "" for sample in range(len(source))]
    stay = (*LOSSLESS, *(JPEG if jpeg_quality else ()))
    for sample, (file, name) in enumerate(zip(files, published_names(files, stay), strict=True)):
        clean = source.native(sample)
        assert clean is not None
        published = clean if publish is None else publish(sample, clean)
        name = _with_room_for_alpha(name, published)
        ending = PurePosixPath(name).suffix.lower()
        written = "" if name == file else f"written as {LOSSLESS[ending][0]}"
        if ending in JPEG:
            assert jpeg_quality is not None
            written = f"encoded again as JPEG at quality {jpeg_quality}"
            data = encode_jpeg(published.pixels, jpeg_quality)
            seen = decode_jpeg(data)
            remains = what_remains(clean, published, seen, jpeg_quality)
            numbers = {**compare(clean, published._replace(pixels=seen)), **remains}
        else:
            data, numbers = _lossless(published, ending), {**compare(clean, published)}
        with create(folder / split / name) as out:
            out.write(data)
        note = ", ".join(filter(None, [*clean.changes, written]))
        yield Record(split, file, name, publish is not None, note, numbers)


def published_names(files: Sequence[str], endings: Sequence[str] = tuple(LOSSLESS)) -> list[str]:
    """Where files go: an ending that is not among those that stay changes, from a.jpg to a.png, or to a.jpg.png where
    that is taken.

    Raises:
        StoreError: a name leads out of the folder.
    """
    stay = [_stays(file, endings) for file in files]
    # Upper and lower case are one on many file systems.
    taken = {file.casefold() for file, stays in zip(files, stay, strict=True) if stays}
    names = []
    for file, stays in zip(files, stay, strict=True):
        if not stays:
            longer = (file + ".png" * count for count in itertools.count(1))
            candidates = itertools.chain([str(PurePosixPath(file).with_suffix(".png"))], longer)
            file = next(name for name in candidates if name.casefold() not in taken)
            taken.add(file.casefold())
        names.append(file)
    return names


def _stays(file: str, endings: Sequence[str]) -> bool:
    path = PurePosixPath(file)
    if path.is_absolute() or ".." in path.parts or not path.name:
        raise StoreError(f"the name {file!r} leads out of the folder; rename the file")
    return path.suffix.lower() in endings


def _with_room_for_alpha(name: str, image: Native) -> str:
    ending = PurePosixPath(name).suffix.lower()
    return f"{name}.png" if image.alpha is not None and ending in WITHOUT_ALPHA else name


def planes(image: Native) -> Samples:
    """Pixels and, where there is any, transparency [C, H, W]."""
    return image.pixels if image.alpha is None else np.concatenate([image.pixels, image.alpha[None]])


def _lossless(image: Native, ending: str) -> bytes:
    modes = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
    pixels = np.ascontiguousarray(planes(image).transpose(1, 2, 0))
    kind, settings = LOSSLESS[ending]
    picture = Image.frombytes(modes[pixels.shape[2]], (pixels.shape[1], pixels.shape[0]), pixels.tobytes())
    file = io.BytesIO()
    picture.save(file, format=kind, **settings)
    return file.getvalue()
