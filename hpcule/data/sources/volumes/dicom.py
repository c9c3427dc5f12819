"""DICOM series as volumes: slices sorted by where they are in the patient, whatever their files are called."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hpcule.config.errors import DataError, OpeningError
from hpcule.data.grid import Grid
from hpcule.data.source import Ids, Native, Samples, Source
from hpcule.data.sources.dicom import DicomSource
from hpcule.data.sources.layout import UnreadableError
from hpcule.data.sources.volumes.segments import SegmentMasks, StackedMasks

_PARALLEL = 1e-3
"""Largest difference between direction cosines of slices that rounding explains."""
_SPACING = 0.05
"""Largest difference between distances of slices, as a share of the usual one, that rounding explains."""
_TAGS = ("SeriesInstanceUID", "ImagePositionPatient", "ImageOrientationPatient")


@dataclass(frozen=True)
class Slice:
    """Where a file's image is.

    Attributes:
        series: UID of its series.
        position: of its first pixel, in millimetres [3].
        orientation: directions of rows and columns [6].
    """

    series: str
    position: npt.NDArray[np.float64]
    orientation: npt.NDArray[np.float64]


class DicomVolumes(Source):
    """Every series whole, slices from one end of the normal of its images to the other, one below the other.

    Files of one image each make up a series. The window is that of the slice in the middle.

    Attributes:
        slices: the files.
        series: of each volume, the numbers of its files, in order.
    """

    name = "dicom"
    kind = "dicom"
    levels = 255
    decodes = True
    folder: Path
    depth: int

    def __init__(
        self,
        root: Path,
        split: str,
        *,
        skip_unreadable: bool = False,
        exclude: tuple[str, ...] = (),
        labels: tuple[str, ...] = (),
    ) -> None:
        """Read the headers of all files; see `DicomSource`.

        Raises:
            DataError: see there, or a series lacks a slice, has slices of several orientations, or another size.
            UsageError: pydicom is not installed.
        """
        try:
            slices = DicomSource(root, split, skip_unreadable=skip_unreadable, exclude=exclude, labels=labels)
        except OpeningError as error:
            if error.name != "image_size":
                raise
            remedy = "resample or crop all volumes to one size, or leave volumes=true out to take slices"
            raise DataError(f"{error.seen}; {remedy}") from None
        self.slices = slices
        self.split, self.folder, self.left_out = slices.split, slices.folder, slices.left_out
        self.ignored, self.declared = slices.ignored, slices.declared
        self.series = self._grouped()
        self.depth = self._common_depth()
        self.shape = (1, self.depth * slices.shape[1], slices.shape[2])
        self.labels, self.class_names = None, slices.class_names
        first = np.array([series[0] for series in self.series])
        if slices.labels is not None:
            self.labels = slices.labels[first]
        if slices.label_matrix is not None:
            self.label_matrix = slices.label_matrix.of(first)
        if isinstance(slices.masks, SegmentMasks):
            self.masks = StackedMasks(slices.masks, self.series)
        self._last = lru_cache(maxsize=1)(self._read)

    def __len__(self) -> int:
        return len(self.series)

    def read(self, ids: Ids) -> Samples:
        """See `Source.read`."""
        return np.stack([self.native(sample).shown() for sample in ids.tolist()])

    def file_name(self, sample: int) -> str:
        """The path of the first slice below the folder of its split."""
        return self.slices.files[self.series[sample][0]]

    def native(self, sample: int) -> Native:
        """A volume as its files store it; see `Source.native`.

        Raises:
            DataError: slices differ in what their stored values stand for.
        """
        return self._last(sample)

    def native_size(self, sample: int) -> tuple[int, int]:
        """See `Source.native_size`."""
        return self.shape[1], self.shape[2]

    def of_slices(self, native: Native) -> list[Native]:
        """The slices of a volume."""
        return [native._replace(pixels=part) for part in np.split(native.pixels, self.depth, axis=1)]

    def _read(self, sample: int) -> Native:
        files = self.series[sample]
        ends = [self.slices.seen[file] for file in files]
        known = [end for end in ends if end is not None]
        seen = (min(low for low, _ in known), max(high for _, high in known)) if known else None
        parts = [self.slices.stored(file, seen) for file in files]
        grids = [_facts(part.grid) for part in parts]
        for file, facts in zip(files, grids, strict=True):
            if facts != grids[0]:
                raise DataError(
                    f"{self.folder / self.slices.files[file]} stores values of another scale or depth than other "
                    "slices of its series; leave volumes=true out, or convert the series to one scale"
                )
        return Native(np.concatenate([part.pixels for part in parts], axis=1), grid=parts[len(parts) // 2].grid)

    def _grouped(self) -> list[list[int]]:
        """Files by series, in the order of their first files, each sorted by position."""
        found: dict[str, list[int]] = {}
        slices: list[Slice] = []
        for number, file in enumerate(self.slices.files):
            path = self.folder / file
            if self.slices.frames[number] != 1 or self.slices.shape[0] != 1:
                raise DataError(
                    f"{path} has several frames or colours, and volumes=true takes series of grey images, one a file; "
                    "leave volumes=true out, or the file with exclude"
                )
            slices.append(read_slice(path))
            found.setdefault(slices[-1].series, []).append(number)
        return [self._sorted(files, [slices[file] for file in files]) for files in found.values()]

    def _sorted(self, files: Sequence[int], slices: Sequence[Slice]) -> list[int]:
        """The files of a series in order.

        Raises:
            DataError: images have several orientations, two are at one place, or one is missing.
        """
        first = slices[0]
        paths = [self.folder / self.slices.files[file] for file in files]
        for path, one in zip(paths, slices, strict=True):
            if np.abs(one.orientation - first.orientation).max() > _PARALLEL:
                raise DataError(
                    f"{path} has another orientation than {paths[0]}, in one series; put images of several "
                    "orientations, such as localisers, into series of their own, or leave them out with exclude"
                )
        normal = np.cross(first.orientation[:3], first.orientation[3:])
        places = np.array([one.position @ normal for one in slices])
        order = np.argsort(places, kind="stable")
        gaps = np.diff(places[order])
        usual = float(np.median(gaps)) if len(gaps) else 0.0
        for gap, before, after in zip(gaps.tolist(), order[:-1].tolist(), order[1:].tolist(), strict=True):
            if gap <= _SPACING * usual:
                raise DataError(
                    f"{paths[before]} and {paths[after]} are at one place, in one series; leave one out with exclude"
                )
            if abs(gap - usual) > _SPACING * usual:
                raise DataError(
                    f"{paths[before]} and {paths[after]} are {gap:.4g} mm apart, and other slices of the series "
                    f"{usual:.4g} mm: a slice is missing; add it, or leave the series out with exclude"
                )
        return [files[place] for place in order.tolist()]

    def _common_depth(self) -> int:
        first = self.series[0]
        for files in self.series:
            if len(files) != len(first):
                begins = [self.folder / self.slices.files[one[0]] for one in (first, files)]
                raise DataError(
                    f"volumes of different sizes: the series of {begins[0]} has {len(first)} slices, that of "
                    f"{begins[1]} has {len(files)}; resample or crop all to one size, "
                    "or leave volumes=true out to take slices"
                )
        return len(first)


def read_slice(path: Path) -> Slice:
    """Where the image of a file is.

    Raises:
        UnreadableError: it does not say.
    """
    from pydicom import dcmread

    from hpcule.data.sources.dicom_file import reading

    with reading(path):
        header = dcmread(path, specific_tags=list(_TAGS), stop_before_pixels=True)
        values = [header.get(name) for name in _TAGS]
    series, position, orientation = values
    if not series or len(position or ()) != 3 or len(orientation or ()) != 6:
        missing = ", ".join(name for name, value in zip(_TAGS, values, strict=True) if not value) or _TAGS[1]
        raise UnreadableError.of(path, f"it has no {missing}", "a slice of a volume", "leave volumes=true out")
    return Slice(str(series), np.array(position, np.float64), np.array(orientation, np.float64))


def _facts(grid: Grid | None) -> tuple[object, ...]:
    """What grids of one volume have in common: all but the window."""
    assert grid is not None
    return grid.lowest, len(grid.table), grid.padding, grid.scale, grid.unit < 0
