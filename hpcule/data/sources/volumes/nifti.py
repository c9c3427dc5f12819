"""NIfTI volumes, each a sample, with masks where there are any."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from hpcule.config.errors import DataError, UsageError, first_line
from hpcule.data.annotations import MaskNumbers, Masks
from hpcule.data.source import Native
from hpcule.data.sources.frames import FrameSource, Head
from hpcule.data.sources.layout import UnreadableError
from hpcule.data.sources.nifti import Volume, head_of_volume, read_stored, read_volume
from hpcule.data.sources.volumes.layouts import VolumeLayout

_TOLERANCE = 1e-2
"""Largest distance in millimetres between corners of a mask and of its volume that rounding explains."""


class Header(Protocol):
    """What nibabel's headers say of space."""

    def get_data_shape(self) -> tuple[int, ...]:
        """The number of voxels along each axis."""

    def get_best_affine(self) -> npt.NDArray[np.float64]:
        """The map from indices to millimetres [4, 4]."""


class Space(NamedTuple):
    """Where a file's voxels are.

    Attributes:
        shape: their number along each axis.
        affine: from their indices to millimetres [4, 4].
    """

    shape: tuple[int, ...]
    affine: npt.NDArray[np.float64]

    @classmethod
    def of(cls, header: Header) -> Space:
        """The place that a header gives them, without trailing axes of one voxel.

        Raises:
            ValueError: there are more than three axes.
        """
        shape = tuple(map(int, header.get_data_shape()))
        while len(shape) > 3 and shape[-1] == 1:
            shape = shape[:-1]
        if len(shape) > 3:
            raise ValueError(
                f"its axes are {list(shape)}, and a volume has three; save each volume as a file of its own"
            )
        return cls((*shape, 1, 1)[:3] if len(shape) < 3 else shape, np.asarray(header.get_best_affine(), np.float64))

    def is_near(self, other: Space) -> bool:
        """Whether all corners are at the same place."""
        last = np.array(self.shape) - 1
        corners = np.array([(*(last * ends), 1) for ends in np.ndindex(2, 2, 2)])
        return bool(np.abs(corners @ (self.affine - other.affine).T).max() <= _TOLERANCE)


class NiftiVolumes(FrameSource):
    """Every volume whole, slices along the third axis one below the other, rows along the second; see `FrameSource`.

    Attributes:
        layout: of the collection.
        mask_files: of each volume, the path of its mask below `folder`; None where there are no masks.
    """

    name = "nifti"
    kind = "nifti"

    def __init__(self, layout: VolumeLayout, split: str, *, skip_unreadable: bool = False) -> None:
        """Read every volume once.

        Args:
            layout: of the collection.
            split: one of its splits, or "all".
            skip_unreadable: leave out volumes that cannot be read.

        Raises:
            DataError: no volumes, a damaged one, one of floats, different sizes, a mask that is missing, of another
                size or at another place.
            UsageError: nibabel is not installed.
        """
        try:
            import nibabel  # noqa: F401
        except ImportError:
            raise UsageError(f"{layout.folder(split)} holds NIfTI volumes: pip install 'hpcule[nifti]'") from None
        self.layout = layout
        heads = _Heads()
        self._take(layout, split, None, heads.read, skip_unreadable)
        assert heads.common is not None
        self.depth = heads.common.shape[2]
        self.volume: Callable[[Path], Volume] = lru_cache(maxsize=1)(read_volume)
        self.mask_files = layout.masks(split, self.files)
        if self.mask_files is not None:
            for file, mask in zip(self.files, self.mask_files, strict=True):
                _check_mask(self.folder, file, mask)
            self.masks = VolumeMasks(self.folder, self.mask_files, layout)

    def frame(self, file: int, number: int) -> Native:
        """See `FrameSource.frame`."""
        volume = self.volume(self.folder / self.files[file])
        stacked = in_rows(volume.values)[None]
        return Native(stacked.astype(stacked.dtype.newbyteorder("="), copy=False), grid=volume.grid)


@dataclass(frozen=True)
class VolumeMasks:
    """The masks of volumes, slices one below the other.

    Attributes:
        folder: of the files.
        files: of each sample, in the order of ids.
        layout: of the collection.
    """

    folder: Path
    files: Sequence[str]
    layout: VolumeLayout

    @property
    def names(self) -> tuple[str, ...]:
        """See `MaskReader`."""
        return self._numbers.names

    @property
    def values(self) -> tuple[int, ...]:
        """The number that masks hold of each class."""
        return tuple(int(np.flatnonzero(self._numbers.numbers == number)[0]) for number in range(len(self.names)))

    def read(self, ids: npt.NDArray[np.int64]) -> Masks:
        """See `MaskReader.read`."""
        return np.stack([self.native(sample) for sample in ids.tolist()])

    def native(self, sample: int) -> Masks:
        """See `MaskReader.native`."""
        path = self.folder / self.files[sample]
        return self._numbers.of(in_rows(mask_values(path)), str(path))

    @cached_property
    def _numbers(self) -> MaskNumbers:
        if (names := self.layout.names()) is not None:
            return MaskNumbers.named(names)
        seen: set[int] = set()
        for path in self.layout.every_mask():
            seen.update(np.unique(mask_values(path)).tolist())
        where = str((self.folder / self.files[0]).parent)
        return MaskNumbers.found([*seen], where, f", or {self.layout.names_file} with the names of the classes")


class _Heads:
    """Reads heads of volumes that all have one size.

    Attributes:
        common: where the first one is; None before it was read.
    """

    def __init__(self) -> None:
        self.common: Space | None = None
        self._first = Path()

    def read(self, path: Path) -> Head:
        """See `DicomSource`'s reading of heads.

        Raises:
            DataError: it has another size than the first.
        """
        head = head_of_volume(path)
        space = space_of(path)
        if self.common is None:
            self.common, self._first = space, path
        if space.shape != self.common.shape:
            sizes = ["x".join(map(str, one.shape)) for one in (self.common, space)]
            raise DataError(
                f"volumes of different sizes: {self._first} is {sizes[0]}, {path} is {sizes[1]}; resample or crop all "
                "to one size, or leave volumes=true out to take slices"
            )
        return Head(1, (space.shape[2] * space.shape[1], space.shape[0]), head.grey, head.label_map)


def in_rows(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Voxels [X, Y, Z] as slices [Y, X] one below the other [Z * Y, X]."""
    return np.ascontiguousarray(values.transpose(2, 1, 0)).reshape(-1, values.shape[0])


def as_voxels(rows: npt.NDArray[Any], shape: Sequence[int]) -> npt.NDArray[Any]:
    """Slices one below the other as voxels [X, Y, Z] again."""
    return rows.reshape(shape[2], shape[1], shape[0]).transpose(2, 1, 0)


def space_of(path: Path) -> Space:
    """Where the voxels of a file are; only its header is read.

    Raises:
        UnreadableError: it is damaged, or holds more than a volume.
    """
    import nibabel

    try:
        image: Any = nibabel.load(path)
        return Space.of(image.header)
    except Exception as error:  # foreign bytes make readers raise what they like
        raise UnreadableError.of(path, first_line(error), "a NIfTI volume") from None


def mask_values(path: Path) -> npt.NDArray[np.uint8]:
    """The class numbers [X, Y, Z] that a mask holds, whatever type it stores them in.

    Raises:
        UnreadableError: it is damaged.
        DataError: it holds other values than whole numbers from 0 to 255.
    """
    stored = read_stored(path)
    values = stored.values.reshape(Space.of(stored.header).shape)
    if (stored.slope, stored.intercept) != (1.0, 0.0):
        values = values * stored.slope + stored.intercept
    with np.errstate(invalid="ignore"):
        numbers: npt.NDArray[np.uint8] = values.astype(np.uint8)
    if values.dtype != np.uint8 and not np.array_equal(numbers, values):
        odd = values[numbers != values].flat[0]
        raise DataError(f"{path}: a mask with the value {odd}; valid are whole numbers from 0 to 255, one a class")
    return numbers


def _check_mask(folder: Path, file: str, mask: str) -> None:
    volume, own = space_of(folder / file), space_of(folder / mask)
    if own.shape != volume.shape:
        sizes = ["x".join(map(str, one.shape)) for one in (own, volume)]
        raise DataError(
            f"{folder / mask} has {sizes[0]} voxels, and its volume {file} has {sizes[1]}; give both one size"
        )
    if not own.is_near(volume):
        raise DataError(
            f"{folder / mask} lies at another place in space than its volume {file}: its affine differs; resample it "
            "onto the volume, or give it the volume's affine if only the header is wrong"
        )
