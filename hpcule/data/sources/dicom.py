"""Collections of DICOM files: a folder a class (under train, val, test or not), with studies and series below, or none.

What a network learns from is what a viewer shows: each frame after the modality's transform and the window, in 8 bits.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from hpcule.config.errors import DataError, UsageError, one_line
from hpcule.data.annotations import UNKNOWN, LabelMatrix
from hpcule.data.source import LeftOut, Native, narrowest
from hpcule.data.sources.frames import FrameSource
from hpcule.data.sources.image_file import ENDINGS as IMAGES
from hpcule.data.sources.layout import files_below
from hpcule.data.sources.mask_files import MASK
from hpcule.data.sources.nested import Nested
from hpcule.data.sources.volumes.segments import SegmentMasks, is_readable, is_segmentation

ENDINGS = (".dcm", ".dicom", ".ima")
_MOST_VALUES = 100
"""Largest number of values of an element whose values are labels."""
_MAGIC_AT, _MAGIC = 128, b"DICM"
_NOUN = f"DICOM files; valid are names that end in {', '.join(ENDINGS)}, or files without an ending that begin as DICOM"


def holds_dicom(root: Path, exclude: tuple[str, ...] = ()) -> bool:
    """Whether the first file below a folder that is an image, a recording or a DICOM file is one of the last."""
    for path in files_below(root, exclude):
        if is_dicom(path):
            return True
        if path.name.lower().endswith((*IMAGES, ".wav", ".flac")):
            return False
    return False


def is_dicom(path: Path) -> bool:
    """Whether a file's ending says that it is DICOM, or, where it has none, its first bytes; directories are not.

    A number behind the last dot is no ending: files are called after UIDs.
    """
    if path.suffix.lower() in ENDINGS:
        return True
    if path.name.upper() == "DICOMDIR" or (path.suffix and not path.suffix[1:].isdigit()) or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(_MAGIC_AT + len(_MAGIC))[_MAGIC_AT:] == _MAGIC


def dicom_splits(root: Path, exclude: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Splits of a folder of DICOM files: its sub-folders if they are all called train, val or test, else "all"."""
    return _nested(root, exclude).splits()


class DicomSource(FrameSource):
    """Every frame of every file; see `FrameSource`. Where a first folder is called after a patient, no labels.

    Attributes:
        seen: of each file, the stored values that are shown black and white where it does not say so itself.
    """

    name = "dicom"
    kind = "dicom"

    def __init__(
        self,
        root: Path,
        split: str,
        *,
        image_size: int | None = None,
        skip_unreadable: bool = False,
        exclude: tuple[str, ...] = (),
        labels: tuple[str, ...] = (),
    ) -> None:
        """List the files and read their headers; those without a window are decoded.

        Args:
            root: the folder.
            split: one of its splits, or "all".
            image_size: resize each frame to this height and width; None needs frames of one size.
            skip_unreadable: decode each file once now, and leave out those that cannot be decoded.
            exclude: patterns of files that are no samples; see `is_excluded`.
            labels: keywords of elements whose values are labels, in place of the names of folders.

        Raises:
            DataError: no files, a damaged one, one of an unknown compression, different sizes, a link that leads out,
                an image that no segmentation refers to where others have one, or an element that cannot be a label.
            UsageError: pydicom is not installed, or highdicom for segmentations, or an element is unknown.
        """
        try:
            from hpcule.data.sources.dicom_file import read_frame, read_head, read_patient
        except ImportError:
            raise UsageError(f"{root} holds DICOM files: pip install 'hpcule[dicom]'") from None
        self._read_frame, self._read_patient = read_frame, read_patient
        read = partial(read_head, decode=skip_unreadable)
        images = _Images(root, is_dicom, _NOUN, exclude)
        heads = self._take(images, split, image_size, read, skip_unreadable)
        self.seen = [head.seen for head in heads]
        self.declared = [head.declared for head in heads]
        patients = frozenset[str]().union(*(head.patient for head in heads))
        if _plain(self.class_names or ()) & _plain(patients):
            self.labels = self.class_names = None
        if labels:
            self._take_labels(images, labels)
        if segmentations := images.segmentations(split):
            self.left_out = [*self.left_out, *(LeftOut(file, MASK, excluded=True) for file in segmentations)]
            masks = self._masks_of(images, split, image_size, skip_unreadable)
            # Those of other images say nothing of these.
            if masks.of_any_image():
                masks.check()
                self.masks = masks

    def _masks_of(self, images: _Images, split: str, image_size: int | None, skip_unreadable: bool) -> SegmentMasks:
        """The masks that segmentations have, but for those that cannot be read where these are to be skipped."""
        paths = {one: [images.folder(one) / file for file in images.segmentations(one)] for one in images.splits()}
        paths[split] = [self.folder / file for file in images.segmentations(split)]
        if skip_unreadable:
            paths = {one: [path for path in listed if is_readable(path)] for one, listed in paths.items()}
        everywhere = [path for one in images.splits() for path in paths[one]]
        frames = [
            (self.folder / file, k) for file, count in zip(self.files, self.frames, strict=True) for k in range(count)
        ]
        sizes = [self.native_size(sample) for sample in range(len(self))]
        return SegmentMasks(paths[split], everywhere, frames, sizes, image_size)

    def _take_labels(self, images: _Images, names: tuple[str, ...]) -> None:
        """One class a sample where one element is named, else a label for each of their values; over all splits."""
        known = {one: self.files if one == self.split else images.scan(one) for one in images.splits()}
        values = {one: read_labels(images.folder(one), files, names) for one, files in known.items()}
        found = [sorted({row[k] for rows in values.values() for row in rows} - {""}) for k in range(len(names))]
        own = values[self.split]
        for name, some in zip(names, found, strict=True):
            if len(some) > _MOST_VALUES:
                raise DataError(
                    f"{name} has {len(some)} values in {self.folder}, which is no label: name one with few values"
                )
        if len(names) == 1:
            if absent := [file for file, (value,) in zip(self.files, own, strict=True) if not value]:
                raise DataError(
                    f"{self.folder / absent[0]} has no {names[0]}; leave it out with exclude, or name several "
                    "elements, whose values may be unknown"
                )
            numbers = np.array([found[0].index(value) for (value,) in own], np.int64)
            self.labels, self.class_names = np.repeat(narrowest(numbers), self.frames), tuple(found[0])
            return
        columns = [(k, value) for k, some in enumerate(found) for value in some]
        rows = [[UNKNOWN if not row[k] else int(row[k] == value) for k, value in columns] for row in own]
        matrix = np.array(rows, np.int8).reshape(len(own), len(columns)).repeat(self.frames, axis=0)
        self.label_matrix = LabelMatrix(matrix, tuple(f"{names[k]}={value}" for k, value in columns))

    def patient(self, file: int) -> str:
        """Whose file it is, by what identifies the patient: this is as private as the file.

        Raises:
            DataError: the file cannot be read.
        """
        return self._read_patient(self.folder / self.files[file])

    def stored(self, file: int, seen: tuple[int, int] | None) -> Native:
        """The first frame of a file, shown from one stored value to another where it has no window of its own."""
        return self._read_frame(self.folder / self.files[file], 0, seen)

    def frame(self, file: int, number: int) -> Native:
        """See `FrameSource.frame`."""
        return self._read_frame(self.folder / self.files[file], number, self.seen[file])


class _Images(Nested):
    """The images among DICOM files; segmentations are next to them."""

    def scan(self, split: str) -> list[str]:
        """See `Nested.scan`."""
        return [file for file in super().scan(split) if file not in self.segmentations(split)]

    def segmentations(self, split: str) -> dict[str, None]:
        """The segmentations of a split, in order."""
        folder = self.folder(split)
        if split not in self._segmentations:
            files = super().scan(split)
            self._segmentations[split] = dict.fromkeys(file for file in files if is_segmentation(folder / file))
        return self._segmentations[split]

    @cached_property
    def _segmentations(self) -> dict[str, dict[str, None]]:
        return {}

    def ignored(self, split: str, files: list[str]) -> list[str]:
        """See `Nested.ignored`."""
        return super().ignored(split, [*files, *self.segmentations(split)])


def read_labels(folder: Path, files: Sequence[str], names: Sequence[str]) -> list[tuple[str, ...]]:
    """The values of elements by their keywords, of each file; "" where it has none, or cannot be read.

    Raises:
        UsageError: the standard has no such element, or it says who the patient is.
    """
    from pydicom import dcmread
    from pydicom.datadict import keyword_dict, tag_for_keyword

    for name in names:
        if tag_for_keyword(name) is None or name.startswith("PatientName") or name == "PatientID":
            near = difflib.get_close_matches(name, keyword_dict, n=1)
            hint = f"; did you mean {near[0]}?" if near and near[0] != name else "."
            raise UsageError(
                f"dicom_labels: {name} is no element that may be a label{hint} Valid are keywords of the "
                "standard, such as PatientSex or ViewPosition, that do not say who the patient is"
            )
    rows = []
    for file in files:
        values = dict.fromkeys(names, "")
        with suppress(Exception):  # foreign bytes make readers raise what they like; such files are reported as samples
            header = dcmread(folder / file, specific_tags=list(names), stop_before_pixels=True)
            values = {name: one_line(str(header.get(name) or "").strip()) for name in names}
        rows.append(tuple(values.values()))
    return rows


def _nested(root: Path, exclude: tuple[str, ...]) -> Nested:
    return Nested(root, is_dicom, _NOUN, exclude)


def _plain(names: Iterable[str]) -> set[str]:
    """Letters and digits alone, in lower case: DOE^JOHN is Doe_John."""
    return {"".join(filter(str.isalnum, name)).casefold() for name in names}
