"""DICOM files published: the frames of each in one file again, with the tags that a policy leaves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import numpy as np
from pydicom import DataElement, Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.pixels.utils import pack_bits, set_pixel_data
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless, generate_uid

from hpcule.data.source import Native, Source
from hpcule.data.sources.dicom import DicomSource
from hpcule.data.sources.dicom_file import little_endian, read_frame, read_head, read_patient, reading
from hpcule.data.sources.dicom_grid import GREY, PALETTE, set_window
from hpcule.data.sources.layout import UnreadableError
from hpcule.data.sources.volumes.dicom import DicomVolumes
from hpcule.data.sources.volumes.segments import is_segmentation
from hpcule.publish.collection import Compare, PublishNative, Record
from hpcule.publish.dates import DateShifts
from hpcule.publish.deidentify import NewUids, Policy, apply_policy
from hpcule.publish.frames import NativeBound, neutral_name, published_frames, with_numbers
from hpcule.store.staged import create

_DESCRIPTION = "Pixel values slightly changed to protect the image against unauthorised training"
_INSTANCE = ("SOPInstanceUID", "SeriesInstanceUID")
_LOSSY = (JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless)
"""Syntaxes that always lose something; JPEG 2000 may."""
_LIMITS = ("SmallestImagePixelValue", "LargestImagePixelValue")
_LIMITS_ELSEWHERE = (
    *("SmallestPixelValueInSeries", "LargestPixelValueInSeries"),
    *("SmallestImagePixelValueInPlane", "LargestImagePixelValueInPlane"),
)


@dataclass(frozen=True)
class DicomWriter:
    """Writes DICOM files of all splits of a collection.

    Attributes:
        policy: what becomes of the tags; see `apply_policy`.
        bound: how far stored values of an image may have moved.
        shifts: how many days earlier the dates of each patient become; None: dates are treated as all other tags.
        uids: new ones, the same for all splits.
    """

    policy: Policy
    bound: NativeBound
    shifts: DateShifts | None = None
    uids: NewUids = field(default_factory=NewUids)

    def write(
        self, folder: Path, split: str, source: Source, publish: PublishNative | None, compare: Compare
    ) -> Iterator[Record]:
        """Write the files of a split, and yield their records.

        Args:
            folder: the copy.
            split: its sub-folder; "" for none.
            source: the files.
            publish: what becomes of a frame; None: it stays as it is.
            compare: see `Record.numbers`; of a file with several frames, those of the frame that is changed most.

        Raises:
            DataError: a file cannot be read; the message names it.
        """
        if isinstance(source, DicomVolumes):
            yield from self._write_volumes(folder / split, split, source, publish, compare)
            return
        assert isinstance(source, DicomSource), source.kind
        if self.policy == "keep" and publish is not None:
            self._meet(source)
        for number, file in enumerate(source.files):
            name = file if self.policy == "keep" else neutral_name(source, number, ".dcm")
            place = folder / split / name
            pairs = published_frames(source, number, publish)
            frames = [published for _, published in pairs] or [source.native(frame) for frame in source.of_file(number)]
            path, seen = source.folder / file, source.seen[number]
            self._write(path, seen, frames, place, protected=publish is not None)
            note = ", ".join([*frames[0].changes, *source.declared[number]])
            yield with_numbers(Record(split, file, name, bool(pairs), note, {}), pairs, compare, self.bound)

    def _write_volumes(
        self, folder: Path, split: str, source: DicomVolumes, publish: PublishNative | None, compare: Compare
    ) -> Iterator[Record]:
        """Write series, each file with its slice, below a folder for each."""
        slices = source.slices
        if self.policy == "keep" and publish is not None:
            self._meet(slices)
        for sample, files in enumerate(source.series):
            clean = source.native(sample)
            published = clean if publish is None else publish(sample, clean)
            parts = zip(source.of_slices(clean), source.of_slices(published), strict=True)
            for place, (file, pair) in enumerate(zip(files, parts, strict=True)):
                path = slices.folder / slices.files[file]
                above = neutral_name(slices, sample, "")
                name = slices.files[file] if self.policy == "keep" else f"{above}/{place:06d}.dcm"
                self._write(path, slices.seen[file], [pair[1]], folder / name, protected=publish is not None)
                note = ", ".join(slices.declared[file])
                pairs = [] if publish is None else [pair]
                record = Record(split, slices.files[file], name, bool(pairs), note, {})
                yield with_numbers(record, pairs, compare, self.bound)

    def copy(self, path: Path, place: Path) -> None:
        """Write a file as it is, with the tags that the policy leaves.

        Raises:
            UnreadableError: it cannot be decoded.
        """
        if is_segmentation(path):
            self._copy_segmentation(path, place)
            return
        head = read_head(path, decode=False)
        frames = [read_frame(path, frame, head.seen) for frame in range(head.frames)]
        self._write(path, head.seen, frames, place, protected=False)

    def _write(
        self, path: Path, seen: tuple[int, int] | None, frames: Sequence[Native], place: Path, *, protected: bool
    ) -> None:
        """Write a file with these frames.

        They are written uncompressed even where they are only copied: a compressed frame holds comments, and bytes that
        no decoder reads, and so does a file behind its last pixel and above its highest bit.
        """
        with reading(path):
            dataset = little_endian(dcmread(path))
            days = None if self.shifts is None else self.shifts.days[read_patient(path)]
            _set_pixels(dataset, frames, seen)
            dataset = apply_policy(dataset, self.policy, self.uids, days)
            if protected:
                _say_derived(dataset)
            written = _encoded(dataset)
        with create(place) as out:
            out.write(written.getbuffer())

    def _copy_segmentation(self, path: Path, place: Path) -> None:
        """Write a segmentation with its pixels, the tags that the policy leaves, and the labels of its segments, which
        are names of classes.

        Raises:
            UnreadableError: it is damaged, or the policy leaves nothing that makes a segmentation.
        """
        if self.policy == "minimal":
            raise UnreadableError.of(path, "the policy minimal leaves no segmentations", "a DICOM image")
        with reading(path):
            dataset = little_endian(dcmread(path))
            labels = [str(segment.SegmentLabel) for segment in dataset.SegmentSequence]
            pixels = dataset.pixel_array
            packed = pack_bits(pixels.ravel()) if dataset.BitsAllocated == 1 else pixels.tobytes()
            dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
            dataset.PixelData = packed + b"\0" * (len(packed) % 2)
            dataset["PixelData"].VR = "OB"
            days = None if self.shifts is None else self.shifts.days[read_patient(path)]
            dataset = apply_policy(dataset, self.policy, self.uids, days)
            for segment, label in zip(dataset.SegmentSequence, labels, strict=True):
                segment.SegmentLabel = label
            written = _encoded(dataset)
        with create(place) as out:
            out.write(written.getbuffer())

    def _meet(self, source: DicomSource) -> None:
        """Give new UIDs to the instances and series of the files, so that references to them follow."""
        for file in source.files:
            with reading(source.folder / file):
                header = dcmread(source.folder / file, specific_tags=list(_INSTANCE), stop_before_pixels=True)
                for name in _INSTANCE:
                    if header.get(name):
                        self.uids.renew(header[name].value)


def _set_pixels(dataset: Dataset, frames: Sequence[Native], seen: tuple[int, int] | None) -> None:
    """The pixels of all frames, uncompressed, and what the header says of them."""
    meta, stored_as = dataset.file_meta, str(dataset.PhotometricInterpretation)
    grey = stored_as in GREY
    if meta.TransferSyntaxUID in _LOSSY and not dataset.get("LossyImageCompression"):
        dataset.LossyImageCompression = "01"
    if seen is not None:
        set_window(dataset, seen)
    planes = np.stack([frame.pixels[0] if grey else frame.pixels.transpose(1, 2, 0) for frame in frames])
    bits = planes.dtype.itemsize * 8 if stored_as == PALETTE else int(dataset.BitsStored)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    pixels = planes if "NumberOfFrames" in dataset else planes[0]
    set_pixel_data(dataset, pixels, stored_as if grey else "RGB", bits, generate_instance_uid=False)
    if not dataset.get("SOPInstanceUID"):
        dataset.SOPInstanceUID = generate_uid(prefix=None)
    for element in list(dataset.group_dataset(0x0028)):
        palette = stored_as == PALETTE and "Palette" in element.keyword
        if palette or element.keyword in _LIMITS_ELSEWHERE or (element.keyword in _LIMITS and not grey):
            del dataset[element.tag]
    for name, value in zip(_LIMITS, (planes.min(), planes.max()), strict=True):
        if name in dataset:
            setattr(dataset, name, int(value))


def _encoded(dataset: Dataset) -> BytesIO:
    """The bytes of a file with these elements, without what a preamble and a header could hold besides."""
    dataset.preamble = b"\0" * 128
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    written = BytesIO()
    dataset.save_as(written, enforce_file_format=True)
    return written


def _say_derived(dataset: Dataset) -> None:
    """PS3.3 C.7.6.1.1: pixels that were derived from others, and how."""
    dataset.ImageType = ["DERIVED", *list(dataset.get("ImageType") or ["", "SECONDARY"])[1:]]
    dataset.DerivationDescription = _DESCRIPTION

    def derived(_: Dataset, element: DataElement) -> None:
        if element.keyword == "FrameType" and element.value:
            element.value = ["DERIVED", *element.value[1:]]

    dataset.walk(derived)
