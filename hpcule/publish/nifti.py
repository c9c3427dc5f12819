"""NIfTI volumes published: the slices of each in one volume again, without the texts of its header."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hpcule.data.source import Native, Source
from hpcule.data.sources.nifti import ENDINGS, NiftiSource, Stored, Volume, read_stored
from hpcule.publish.collection import Compare, PublishNative, Record
from hpcule.publish.frames import NativeBound, neutral_name, published_frames, with_numbers
from hpcule.store.staged import create

_KEPT = ("dim_info", "xyzt_units", "slice_code", "slice_start", "slice_end", "slice_duration", "toffset", "intent_code")
_ORIENTATIONS = {
    "qform_code": ("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
    "sform_code": ("srow_x", "srow_y", "srow_z"),
}
"""Place in space: numbers that count only where their code is not 0."""


@dataclass(frozen=True)
class NiftiWriter:
    """Writes volumes.

    Attributes:
        keep_names: whether files keep their names, which may be those of patients.
        bound: how far stored values of a slice may have moved.
    """

    keep_names: bool
    bound: NativeBound

    def write(
        self, folder: Path, split: str, source: Source, publish: PublishNative | None, compare: Compare
    ) -> Iterator[Record]:
        """Write the volumes of a split, and yield their records; see `DicomWriter.write`."""
        assert isinstance(source, NiftiSource), source.kind
        for number, file in enumerate(source.files):
            ending = next(ending for ending in reversed(ENDINGS) if file.lower().endswith(ending))
            name = file if self.keep_names else neutral_name(source, number, ending)
            place = folder / split / name
            pairs = published_frames(source, number, publish)
            _write(place, source.volume(source.folder / file), [published for _, published in pairs])
            yield with_numbers(Record(split, file, name, bool(pairs), "", {}), pairs, compare, self.bound)


def _write(place: Path, volume: Volume, slices: list[Native]) -> None:
    """A volume with these slices, or those that it has."""
    values = volume.values
    if slices:
        values = np.stack([published.pixels[0].T for published in slices], axis=2)
    write_volume(place, volume, values)


def write_volume(place: Path, volume: Volume, values: npt.NDArray[np.generic]) -> None:
    """Write a volume with these values: same type, scale, and place in space.

    Its bytes are written as they are: nibabel's own way from an array to a file scales values again.
    """
    _write_values(place, volume, volume.window, values)


def copy_volume(path: Path, place: Path) -> None:
    """Write a volume of numbers of any type again: the bytes of its values, and what its header says of them.

    Raises:
        UnreadableError: it is damaged.
    """
    stored = read_stored(path)
    window = float(stored.header["cal_min"]), float(stored.header["cal_max"])
    _write_values(place, stored, window, stored.values)


def _write_values(
    place: Path, stored: Stored | Volume, window: tuple[float, float], values: npt.NDArray[np.generic]
) -> None:
    from nibabel.openers import Opener

    header = _plain(stored, window)
    create(place).close()
    with Opener(str(place), "wb") as file:
        header.write_to(file)
        # A file's first axis varies fastest, and the slices of `Volume` are numbered the other way round.
        file.write(values.reshape(header.get_data_shape()).astype(header.get_data_dtype()).tobytes(order="F"))


def _plain(stored: Stored | Volume, window: tuple[float, float]) -> Any:
    """A new header with what the image needs of the old one: no text, no extension, no unused number comes along."""
    old = stored.header
    new = type(old)(endianness=old.endianness)
    new.set_data_dtype(old.get_data_dtype())
    axes = int(old["dim"][0])
    new.set_data_shape(old.get_data_shape())
    new["pixdim"][: axes + 1] = old["pixdim"][: axes + 1]
    for name in _KEPT:
        new[name] = old[name]
    for code, numbers in _ORIENTATIONS.items():
        if old[code]:
            for name in (code, *numbers):
                new[name] = old[name]
    new["cal_min"], new["cal_max"] = window
    new["vox_offset"] = new.single_vox_offset
    new.set_slope_inter(stored.slope, stored.intercept)
    return new
