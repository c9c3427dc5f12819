"""Masks of DICOM images from segmentation files (DICOM SEG), found by the images that these refer to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from hpcule.config.errors import DataError, UsageError, first_line, one_line
from hpcule.data.annotations import BACKGROUND, Masks
from hpcule.data.resize import resize_mask
from hpcule.data.sources.layout import UnreadableError

if TYPE_CHECKING:
    from highdicom.seg import Segmentation

SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
"""The class of segmentation files."""
_NOUN = "a DICOM segmentation"


class Contents(NamedTuple):
    """What a segmentation file is about.

    Attributes:
        images: UIDs of the images that it refers to.
        labels: of its segments, by number.
    """

    images: frozenset[str]
    labels: dict[int, str]


def is_segmentation(path: Path) -> bool:
    """Whether the first bytes of a DICOM file say that it is a segmentation."""
    from pydicom.filereader import read_file_meta_info

    with suppress(Exception):  # foreign bytes make readers raise what they like, and are no segmentation
        return str(read_file_meta_info(path).get("MediaStorageSOPClassUID")) == SEGMENTATION
    return False


def is_readable(path: Path) -> bool:
    """Whether a segmentation can be read.

    Raises:
        UsageError: highdicom is not installed.
    """
    try:
        _contents(path)
    except UnreadableError:
        return False
    return True


@dataclass(frozen=True)
class SegmentMasks:
    """The masks of frames of DICOM files, by the labels of the segments.

    Attributes:
        files: segmentations of the split.
        everywhere: those of all splits, whose labels are the classes.
        images: path and number of the frame of each sample, in the order of ids.
        sizes: height and width of each image.
        size: pixels of the height and the width that masks are brought to; None: as they are.
    """

    files: Sequence[Path]
    everywhere: Sequence[Path]
    images: Sequence[tuple[Path, int]]
    sizes: Sequence[tuple[int, int]]
    size: int | None

    def of_any_image(self) -> bool:
        """Whether a segmentation refers to one of the images.

        Raises:
            DataError: a segmentation cannot be read.
            UsageError: highdicom is not installed.
        """
        return not self._known.isdisjoint(self._uids)

    def check(self) -> None:
        """Look whether every image has a segmentation, which need not show anything on it.

        Raises:
            DataError: none refers to an image, or a segmentation cannot be read.
            UsageError: highdicom is not installed.
        """
        for (path, _), uid in zip(self.images, self._uids, strict=True):
            if uid not in self._known:
                raise DataError(
                    f"{path} has no mask: none of the {len(self.files)} segmentation files refers to it; add one, or "
                    "leave the image out with exclude, or leave out the segmentations"
                )

    @cached_property
    def names(self) -> tuple[str, ...]:
        """See `MaskReader`."""
        labels = {label for path in self.everywhere for label in _contents(path).labels.values()}
        return (BACKGROUND, *sorted(labels - {BACKGROUND}))

    def read(self, ids: npt.NDArray[np.int64]) -> Masks:
        """See `MaskReader.read`."""
        masks = [self.native(sample) for sample in ids.tolist()]
        return np.stack(masks if self.size is None else [resize_mask(mask, self.size) for mask in masks])

    def native(self, sample: int) -> Masks:
        """See `MaskReader.native`."""
        uid, frame = self._uids[sample], self.images[sample][1]
        mask: Masks = np.zeros(self.sizes[sample], np.uint8)
        for path in self.files:
            contents = _contents(path)
            if uid not in contents.images:
                continue
            numbers = np.zeros(256, np.uint8)
            for number, label in contents.labels.items():
                numbers[number] = self.names.index(label)
            found = numbers[_segments(path, uid, frame, self._several[uid])]
            if found.shape != mask.shape:
                raise DataError(f"{path} has another size than {self.images[sample][0]}; give both one size")
            if ((mask > 0) & (found > 0) & (mask != found)).any():
                raise DataError(f"{path} gives pixels of {self.images[sample][0]} a second class; keep one of both")
            mask = np.maximum(mask, found)
        return mask

    @cached_property
    def _known(self) -> frozenset[str]:
        return frozenset[str]().union(*(_contents(path).images for path in self.files))

    @cached_property
    def _several(self) -> dict[str, bool]:
        """Whether an image has several frames."""
        counts = Counter(self._uids)
        return {uid: count > 1 for uid, count in counts.items()}

    @cached_property
    def _uids(self) -> list[str]:
        return [_instance(path) for path, _ in self.images]


@dataclass(frozen=True)
class StackedMasks:
    """The masks of volumes from those of their slices.

    Attributes:
        slices: masks of slices.
        volumes: of each volume, its slices in order.
    """

    slices: SegmentMasks
    volumes: Sequence[Sequence[int]]

    @property
    def names(self) -> tuple[str, ...]:
        """See `MaskReader`."""
        return self.slices.names

    def read(self, ids: npt.NDArray[np.int64]) -> Masks:
        """See `MaskReader.read`."""
        return np.stack([self.native(sample) for sample in ids.tolist()])

    def native(self, sample: int) -> Masks:
        """See `MaskReader.native`."""
        return np.concatenate([self.slices.native(one) for one in self.volumes[sample]])


@lru_cache(maxsize=4)
def _opened(path: Path) -> Segmentation:
    try:
        from highdicom.seg import segread
    except ImportError:
        raise UsageError(f"{path} is a DICOM segmentation: pip install 'hpcule[dicom]', or exclude it") from None
    try:
        return segread(path)
    except Exception as error:  # foreign bytes make readers raise what they like
        raise UnreadableError.of(path, first_line(error), _NOUN) from None


@lru_cache(maxsize=4096)
def _contents(path: Path) -> Contents:
    file = _opened(path)
    try:
        images = frozenset(str(uid) for _, _, uid in file.get_source_image_uids())
        numbers = [int(number) for number in file.segment_numbers]
        labels = {number: one_line(str(file.get_segment_description(number).segment_label)) for number in numbers}
        if not images or not all(0 < number < 256 for number in numbers):
            raise ValueError("it names no images, or more than 255 segments")
    except Exception as error:  # see above
        raise UnreadableError.of(path, first_line(error), _NOUN) from None
    return Contents(images, labels)


def _segments(path: Path, uid: str, frame: int, several: bool) -> npt.NDArray[np.uint8]:
    """The number of the segment of each pixel [H, W] of a frame of an image of one or several; 0 for none."""
    file = _opened(path)
    try:
        if several:
            pixels = file.get_pixels_by_source_frame(
                uid, [frame + 1], combine_segments=True, assert_missing_frames_are_empty=True
            )
        else:
            pixels = file.get_pixels_by_source_instance(
                [uid], combine_segments=True, assert_missing_frames_are_empty=True
            )
    except Exception as error:
        raise UnreadableError.of(
            path, first_line(error), _NOUN, "give each pixel one segment, in a file that refers to each of its images"
        ) from None
    return np.asarray(pixels[0], np.uint8)


def _instance(path: Path) -> str:
    from pydicom import dcmread

    from hpcule.data.sources.dicom_file import reading

    with reading(path):
        return str(dcmread(path, specific_tags=["SOPInstanceUID"], stop_before_pixels=True).SOPInstanceUID)
