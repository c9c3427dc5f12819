"""Files that `exclude` keeps from being samples, such as masks and label maps: copied with the values that they have,
and without the metadata that the policy removes."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from PIL import ImageOps

from hpcule.data.source import LeftOut, Recording, Source
from hpcule.data.sources.image_file import opened_image
from hpcule.data.sources.layout import UnreadableError
from hpcule.data.sources.recording import encode, opened
from hpcule.publish.collection import LOSSLESS, Record
from hpcule.store.staged import create

CopyFile = Callable[[Path, Path], None]
"""A function of a file and the place of its copy."""

NOTE = "copied without a perturbation"
_DEEP_COLOURS = ("RGB;16", "RGBA;16", "LA;16")
"""Raw modes of which Pillow drops the lower bytes."""


def write_excluded(folder: Path, split: str, source: Source, copy: CopyFile, neutral: str | None) -> Iterator[Record]:
    """Copy the excluded files of a split, and yield their records; those that cannot be read are left out.

    Args:
        folder: the copy.
        split: its sub-folder; "" for none.
        source: the samples of the split, next to which the files lie.
        copy: writes one of them; it raises `UnreadableError` where it cannot.
        neutral: the ending of names that do not say what a file is called; None: files keep their names.
    """
    assert source.folder is not None, source.kind
    for number, entry in enumerate(entry for entry in source.left_out if entry.excluded):
        place = _free(folder / split / _name(source, entry, number, neutral))
        try:
            copy(source.folder / entry.file, place)
        except UnreadableError as error:
            yield Record(split, entry.file, "", False, f"excluded: left out, it cannot be read ({error.reason})", {})
        else:
            name = place.relative_to(folder / split).as_posix()
            yield Record(split, entry.file, name, False, f"{entry.reason or 'excluded'}: {NOTE}", {}, excluded=True)


def copy_image(path: Path, place: Path) -> None:
    """Write an image again, without loss and in its own mode: the numbers of a palette or of 16 bits stay."""
    with opened_image(path.parent, path.name) as image:
        if any(str(tile.args).startswith(_DEEP_COLOURS) for tile in image.tile):
            raise ValueError("it has colours of more than 8 bits")
        upright = ImageOps.exif_transpose(image)
        plain = upright.copy()
        plain.info = {name: value for name, value in upright.info.items() if name == "transparency"}
        kind, settings = LOSSLESS[place.suffix.lower()]
        data = io.BytesIO()
        plain.save(data, format=kind, **settings)
    with create(place) as file:
        file.write(data.getvalue())


def copy_recording(path: Path, place: Path) -> None:
    """Write a recording again, with nothing but its samples."""
    with opened(path) as (head, samples):
        data = encode(Recording(samples(), head.bits, head.rate, head.format))
    with create(place) as file:
        file.write(data)


def _name(source: Source, entry: LeftOut, number: int, neutral: str | None) -> str:
    path = PurePosixPath(entry.place or entry.file)
    if neutral is not None:
        ending = ".nii.gz" if neutral == ".nii" and path.name.lower().endswith(".gz") else neutral
        above = path.parts[0] if path.parts[0] in (source.class_names or ()) else ""
        return str(PurePosixPath(above, f"excluded-{number:06d}{ending}"))
    if source.kind == "folder" and path.suffix.lower() not in LOSSLESS:
        return str(path.with_suffix(".png"))
    return str(path)


def _free(place: Path) -> Path:
    """The place, or one with a number behind its stem where a sample has that name."""
    free, number = place, 2
    while free.exists():
        free, number = place.with_name(f"{place.stem}-{number}{place.suffix}"), number + 1
    return free
