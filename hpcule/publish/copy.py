"""Writing a copy of a collection in one of the formats: whole, or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from hpcule.config.errors import StoreError, UsageError
from hpcule.data.source import Ids, Native, Recording, Samples, Source
from hpcule.data.sources.volumes.nifti import NiftiVolumes
from hpcule.data.subset import Subset
from hpcule.publish.annotations import write_annotations
from hpcule.publish.collection import Compare, Record, WriteSplit, write_collection
from hpcule.publish.excluded import CopyFile, copy_image, copy_recording, write_excluded
from hpcule.publish.formats import SplitCopy, folder_error, wav_error, write_folder, write_hdf5, write_npz
from hpcule.publish.volumes import (
    Nnunet,
    Pairs,
    VolumeWriter,
    nnunet_error,
    write_class_list,
    write_description,
)
from hpcule.publish.webdataset import write_webdataset
from hpcule.store.files import storage_error
from hpcule.store.staged import staged

if TYPE_CHECKING:
    from hpcule.publish.dates import DateShifts
    from hpcule.publish.deidentify import Policy

_ENDINGS = {"npz": ".npz", "hdf5": ".h5"}
_DEFAULT_FORMAT = {
    "folder": "folder",
    "npz": "npz",
    "idx": "npz",
    "hdf5": "hdf5",
    "wav": "wav",
    "dicom": "dicom",
    "nifti": "nifti",
}
_WRITERS: dict[str, Callable[[Path, Sequence[SplitCopy]], None]] = {"npz": write_npz, "hdf5": write_hdf5}
_FOLDER_WRITERS: dict[str, Callable[[Path, Sequence[SplitCopy]], None]] = {
    "folder": write_folder,
    "wav": write_folder,
    "webdataset": write_webdataset,
}


def _frames_error(source: Source, kind: str, noun: str) -> str | None:
    """Why a format of files with several frames cannot hold the samples, or None."""
    if source.kind != kind:
        return f"these are no {noun}"
    return f"a subset of frames, which does not fill {noun}" if isinstance(source, Subset) else None


_ERRORS: dict[str, Callable[[Source], str | None]] = {
    "folder": folder_error,
    "wav": wav_error,
    "webdataset": lambda source: folder_error(source) if source.rate is None else None,
    "dicom": lambda source: _frames_error(source, "dicom", "DICOM files"),
    "nifti": lambda source: _frames_error(source, "nifti", "NIfTI volumes"),
    "nnunet": nnunet_error,
    **dict.fromkeys(_WRITERS, lambda source: None if source.depth is None else "arrays hold no volumes yet"),
}
FORMATS = (*_FOLDER_WRITERS, "dicom", "nifti", "nnunet", *_WRITERS)


Check = Callable[[Path, Mapping[str, Source], Sequence[Record]], None]
"""A function of the path of a copy, its splits, and the records of its files."""


class Publisher(Protocol):
    """What becomes of the samples of one split on their way into a copy."""

    def publish(self, ids: Ids, clean: Samples) -> Samples:
        """Change samples [n, C, H, W]."""

    def publish_native(self, sample: int, clean: Native) -> Native:
        """Change an image at its own size."""

    def publish_recording(self, sample: int, clean: Recording) -> Recording:
        """Change a recording as its file holds it."""

    def bound(self, native: Native) -> int:
        """How far the budget lets stored values of an image move, in whole ones."""

    def confirm(self) -> None:
        """Raise an error if the copy, which is written and has not got its name yet, must not be seen."""


def check_out(out: Path, format: str | None, source: Source, others: Mapping[str, Source]) -> str:
    """The format of a copy, before anything is computed.

    Args:
        out: a folder that is absent or empty; for "npz" and "hdf5" it may be the file itself (ending .npz or .h5).
        format: one of `FORMATS`; by default what `out` ends in, else what the source was read from.
        source: what is copied.
        others: the other splits.

    Raises:
        StoreError: `out` holds something.
        UsageError: the format is unknown or cannot hold the samples.
    """
    kind = _choose_format(out.absolute(), format, source, others)
    if out.is_symlink():
        raise StoreError(f"{out.absolute()} is a link, which a copy would replace: name a new folder or file")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise StoreError(f"{out.absolute()} is not empty: name a new folder or file for the samples")
    return kind


def write_copy(
    out: Path,
    kind: str,
    source: Source,
    others: Mapping[str, Source],
    publisher: Publisher,
    name: str,
    *,
    native: bool,
    private: bool = False,
    compare: Compare = lambda clean, published: {},
    jpeg_quality: int | None = None,
    dicom_tags: Policy = "basic-deidentify",
    shifts: DateShifts | None = None,
    check: Check | None = None,
) -> tuple[int, list[Record]]:
    """Write a split as `publisher` changes it, and the others as they are next to it.

    Args:
        out: see `check_out`.
        kind: the format, from there.
        source: the split that is changed.
        others: by split, written as they are.
        publisher: what becomes of its samples.
        name: of an npz or HDF5 file, without the ending, where `out` does not give it.
        native: whether files are written at their own sizes.
        private: whether nobody but the owner may read the copy.
        compare: numbers for the record of an image at its own size.
        jpeg_quality: see `write_collection`.
        dicom_tags: what becomes of the tags of DICOM files; with "keep" they, and NIfTI volumes, keep their names.
        shifts: how many days earlier dates of DICOM files become; None: they are treated as all other tags.
        check: called with what was written before it has its name; what it raises leaves nothing behind.

    Returns:
        The bytes written, and what became of each file.

    Raises:
        StoreError: a file's name leads out of the folder, or the disk is full.
        DataError: a sample cannot be read.
        UsageError: the format cannot keep the budget.
    """
    out = out.absolute()
    split = "" if source.split == "all" and not others else source.split
    assert split not in others, split
    sources = {split: source, **others}
    size = sum(len(one) * int(np.prod(one.shape)) * one.dtype.itemsize for one in sources.values())
    if kind in ("dicom", "nifti", "nnunet") and not native:
        raise UsageError(f"{source.name}: a budget of a whole image, which {kind} cannot keep: choose npz or hdf5")
    writers = _writers(kind, source, publisher, jpeg_quality, dicom_tags, shifts)
    write_split = writers.write if native else None
    records: list[Record] = []

    def write_own_sizes(folder: Path, write_split: WriteSplit) -> None:
        for split, one in sources.items():
            publish = publisher.publish_native if one is source else None
            records.extend(write_split(folder, split, one, publish, compare))

    def write(made: Path) -> None:
        if write_split is not None:
            _in_folder(made, partial(write_own_sizes, write_split=write_split))
        else:
            parts = [_part(split, one, publisher if one is source else None, native) for split, one in sources.items()]
            _write_parts(made, out, kind, parts, name)
            records.extend(record for part in parts for record in _records(part, protected=part.source is source))
        if writers.copy is not None and source.folder is not None:
            for split, one in sources.items():
                records.extend(write_excluded(made, split, one, writers.copy, writers.neutral))
        if kind == "folder":
            write_annotations(made, sources, records)
        if kind == "nnunet":
            write_description(made, sources, records)
        elif kind == "nifti":
            write_class_list(made, sources)
        publisher.confirm()
        if check is not None:
            check(made, sources, records)

    return _write_whole(out, write, size, private=private), records


def _records(part: SplitCopy, *, protected: bool) -> Iterator[Record]:
    for sample, place in enumerate(part.places):
        yield Record(part.split, part.source.file_name(sample) or str(sample), place, protected, "", {})


class _Writers(NamedTuple):
    """What writes files one by one.

    Attributes:
        write: the files of a split at their own sizes; None where a format has one size, or none for files.
        copy: a file that is excluded; None where a format has no files.
        neutral: see `write_excluded`.
    """

    write: WriteSplit | None
    copy: CopyFile | None = None
    neutral: str | None = None


def _writers(
    kind: str,
    source: Source,
    publisher: Publisher,
    jpeg_quality: int | None,
    dicom_tags: Policy,
    shifts: DateShifts | None,
) -> _Writers:
    if kind == "dicom":
        try:
            from hpcule.publish.dicom import DicomWriter
        except ImportError:
            raise UsageError("DICOM files are written with the extra dicom: pip install 'hpcule[dicom]'") from None
        dicom = DicomWriter(dicom_tags, publisher.bound, shifts)
        return _Writers(dicom.write, dicom.copy, None if dicom_tags == "keep" else ".dcm")
    keep = dicom_tags == "keep"
    if kind == "nnunet":
        return _Writers(VolumeWriter(Nnunet(keep), publisher.bound).write)
    if kind == "nifti":
        from hpcule.publish.nifti import NiftiWriter, copy_volume

        if source.depth is not None:
            return _Writers(VolumeWriter(Pairs(keep), publisher.bound).write, copy_volume, None if keep else ".nii")
        return _Writers(NiftiWriter(keep, publisher.bound).write, copy_volume, None if keep else ".nii")
    if kind == "folder":
        return _Writers(partial(write_collection, jpeg_quality=jpeg_quality), copy_image)
    return _Writers(None, copy_recording if kind == "wav" else None)


def _part(split: str, source: Source, publisher: Publisher | None, own_sizes: bool) -> SplitCopy:
    """What is written of a split; without a publisher as it is."""

    def publish(ids: Ids, clean: Samples) -> Samples:
        return clean if publisher is None else publisher.publish(ids, clean)

    def native(sample: int) -> Native:
        clean = source.native(sample)
        assert clean is not None
        return clean if publisher is None else publisher.publish_native(sample, clean)

    def recording(sample: int) -> Recording | None:
        clean = source.recording(sample)
        return clean if clean is None or publisher is None else publisher.publish_recording(sample, clean)

    return SplitCopy(split, source, publish, native if own_sizes else None, recording)


def _choose_format(out: Path, format: str | None, source: Source, others: Mapping[str, Source]) -> str:
    from_ending = next((kind for kind, ending in _ENDINGS.items() if out.suffix == ending), None)
    own = source.layout.format if isinstance(source, NiftiVolumes) else _DEFAULT_FORMAT.get(source.kind, "npz")
    chosen = format or from_ending or own
    if chosen not in FORMATS:
        raise UsageError(f"format {chosen} is unknown: {', '.join(FORMATS)}")
    if from_ending is not None and chosen != from_ending:
        raise UsageError(f"{out.name} ends like {from_ending}, but the format is {chosen}: change one of them")
    if chosen in _ERRORS:
        for one in (source, *others.values()):
            if (reason := _ERRORS[chosen](one)) is not None:
                raise UsageError(f"{one.name}: {reason}: choose {_others(one)}")
    return chosen


def _others(source: Source) -> str:
    own = [kind for kind, error in _ERRORS.items() if error(source) is None]
    return f"the format {' or '.join(own)}"


def _in_folder(folder: Path, write: Callable[[Path], None]) -> None:
    folder.mkdir()
    write(folder)


def _write_parts(made: Path, out: Path, kind: str, parts: Sequence[SplitCopy], name: str) -> None:
    """Samples of one size, in a folder or as the file that `out` names."""
    if kind in _FOLDER_WRITERS:
        _in_folder(made, lambda folder: _FOLDER_WRITERS[kind](folder, parts))
    elif out.suffix == _ENDINGS[kind]:
        _WRITERS[kind](made, parts)
    else:
        _in_folder(made, lambda folder: _WRITERS[kind](folder / f"{name}{_ENDINGS[kind]}", parts))


def _write_whole(out: Path, write: Callable[[Path], None], size: int, *, private: bool) -> int:
    """Write a copy so that nothing half-written has its name; return the bytes written."""
    try:
        with staged(out, private=private) as made:
            write(made)
            return sum(path.stat().st_size for path in (made, *made.rglob("*")) if path.is_file())
    except OSError as error:
        raise storage_error(error, out, size, "run again") from error
