"""Collections of NIfTI volumes: a folder a class (under train, val, test or not), or none. Each slice is a sample."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hpcule.config.errors import UsageError, first_line
from hpcule.data.grid import Grid, Scale, linear
from hpcule.data.source import Native
from hpcule.data.sources.array import MOST_COMPRESSED
from hpcule.data.sources.frames import FrameSource, Head
from hpcule.data.sources.image_file import ENDINGS as IMAGES
from hpcule.data.sources.layout import UnreadableError, files_below
from hpcule.data.sources.nested import Nested

ENDINGS = (".nii", ".nii.gz")
PERCENTILES = (0.5, 99.5)
"""Percentiles of a volume's stored values that are displayed as black and as white if its header has no window."""
_LABEL_MAPS = (1002, 1003)
"""Intents of numbers of labels: NIFTI_INTENT_LABEL and NIFTI_INTENT_NEURONAME."""
_NOUN = f"NIfTI volumes; valid are names that end in {' or '.join(ENDINGS)}"


@dataclass(frozen=True)
class Stored:
    """What a file stores: nibabel's header, values of any type and number of axes, and their scale."""

    header: Any
    values: npt.NDArray[Any]
    slope: float
    intercept: float


@dataclass(frozen=True)
class Volume:
    """A volume as it is stored.

    Attributes:
        header: nibabel's.
        values: integers [X, Y, Z]; what has more axes, with these in one, of which the last varies fastest.
        slope: of the scale from stored values to those that the header's display window is in.
        intercept: of the same.
        window: the display window, float32 as the header keeps it.
        grid: how stored values are shown.
    """

    header: Any
    values: npt.NDArray[Any]
    slope: float
    intercept: float
    window: tuple[float, float]
    grid: Grid


def holds_volumes(root: Path, exclude: tuple[str, ...] = ()) -> bool:
    """Whether the first file below a folder that is an image, a recording or a volume is a volume."""
    for path in files_below(root, exclude):
        if (name := path.name.lower()).endswith((*ENDINGS, *IMAGES, ".wav", ".flac")):
            return name.endswith(ENDINGS)
    return False


def nifti_splits(root: Path, exclude: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Splits of a folder of volumes: its sub-folders if they are all called train, val or test, else "all"."""
    return _nested(root, exclude).splits()


def read_volume(path: Path) -> Volume:
    """Read a volume.

    Raises:
        UnreadableError: it is damaged, or stores other than whole numbers of 8 or 16 bits.
    """
    stored = read_stored(path)
    try:
        kind, slope, intercept = stored.values.dtype, stored.slope, stored.intercept
        if kind.kind not in "iu" or kind.itemsize > 2:
            raise ValueError(f"it stores {kind.newbyteorder('=')}; convert it to whole numbers of 16 bits with a scale")
        values = stored.values.reshape(*stored.values.shape[:2], -1)
        window = _window(stored.header, values, slope, intercept)
        ends = ((window[0] - intercept) / slope, (window[1] - intercept) / slope)
        limits = np.iinfo(kind)
        grid = linear(int(limits.min), int(limits.max), ends, scale=Scale(slope, intercept))
        return Volume(stored.header, values, slope, intercept, window, grid)
    except Exception as error:  # foreign bytes make readers raise what they like
        raise UnreadableError.of(path, first_line(error), "a NIfTI volume") from None


def read_stored(path: Path) -> Stored:
    """Read what a volume stores, of any type.

    Raises:
        UnreadableError: it is damaged.
    """
    import nibabel

    try:
        image: Any = nibabel.load(path)
        _check_extent(path, image.shape, image.get_data_dtype(), image.dataobj.offset)
        values = np.asanyarray(image.dataobj.get_unscaled())
        return Stored(image.header, values, float(image.dataobj.slope), float(image.dataobj.inter))
    except Exception as error:  # foreign bytes make readers raise what they like
        raise UnreadableError.of(path, first_line(error), "a NIfTI volume") from None


class NiftiSource(FrameSource):
    """Every slice of every volume along the third axis (and later ones), rows along the second; see `FrameSource`.

    Reading single slices in any order reads the volume again for each: keep a collection in memory
    (`world.resident_mebibytes`).
    """

    name = "nifti"
    kind = "nifti"

    def __init__(
        self,
        root: Path,
        split: str,
        *,
        image_size: int | None = None,
        skip_unreadable: bool = False,
        exclude: tuple[str, ...] = (),
    ) -> None:
        """Read every volume once.

        Args:
            root: the folder.
            split: one of its splits, or "all".
            image_size: resize each slice to this height and width; None needs slices of one size.
            skip_unreadable: leave out volumes that cannot be read.
            exclude: patterns of files that are no samples; see `is_excluded`.

        Raises:
            DataError: no volumes, a damaged one, one of floats, different sizes, a link that leads out.
            UsageError: nibabel is not installed.
        """
        try:
            import nibabel  # noqa: F401
        except ImportError:
            raise UsageError(f"{root} holds NIfTI volumes: pip install 'hpcule[nifti]'") from None
        self._take(_nested(root, exclude), split, image_size, head_of_volume, skip_unreadable)
        # Slices of a volume are mostly read one after the other.
        self.volume: Callable[[Path], Volume] = lru_cache(maxsize=1)(read_volume)

    def frame(self, file: int, number: int) -> Native:
        """See `FrameSource.frame`."""
        volume = self.volume(self.folder / self.files[file])
        plane = np.ascontiguousarray(volume.values[:, :, number].T)[None]
        return Native(plane.astype(plane.dtype.newbyteorder("="), copy=False), grid=volume.grid)


def head_of_volume(path: Path) -> Head:
    """What a file says of its slices.

    Raises:
        UnreadableError: see `read_volume`.
    """
    volume = read_volume(path)
    width, height, slices = volume.values.shape
    label_map = "intent code" if int(volume.header["intent_code"]) in _LABEL_MAPS else ""
    return Head(slices, (height, width), True, label_map)


def _check_extent(path: Path, shape: Sequence[int], stored: np.dtype[np.generic], offset: int) -> None:
    """Compare the number of voxels that a header claims with the bytes that are there, before any are read.

    Raises:
        ValueError: it claims none, or more than the file can hold.
    """
    axes = list(map(int, shape))
    if len(axes) < 2 or min(axes) < 1:
        raise ValueError(f"it holds no slices: its axes are {axes}")
    claimed, there = math.prod(axes) * stored.itemsize, path.stat().st_size
    if path.name.lower().endswith(".gz"):
        there *= MOST_COMPRESSED
    if not 0 <= offset <= there - claimed:
        raise ValueError(f"its header promises {claimed} bytes of voxels")


def _window(header: Any, values: npt.NDArray[Any], slope: float, intercept: float) -> tuple[float, float]:
    """The header's display window, or that of most values, as float32: so the header can keep it."""
    black, white = float(header["cal_min"]), float(header["cal_max"])
    if not 0 < white - black < math.inf:
        ends = np.percentile(values, PERCENTILES) * slope + intercept
        black, white = (float(np.float32(end)) for end in sorted(ends))
    return black, white


def _nested(root: Path, exclude: tuple[str, ...]) -> Nested:
    return Nested(root, lambda path: path.name.lower().endswith(ENDINGS), _NOUN, exclude)
