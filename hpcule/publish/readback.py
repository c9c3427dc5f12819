"""The last step of an export: what was written is read again and compared with the source, sample by sample."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path, PurePosixPath

import numpy as np

from hpcule.config.errors import StoreError, first_line
from hpcule.data.annotations import TABLE, mask_blocks
from hpcule.data.source import Ids, Native, Recording, Samples, Source
from hpcule.data.sources.frames import FrameSource
from hpcule.data.sources.volumes.dicom import DicomVolumes
from hpcule.data.sources.volumes.segments import is_segmentation
from hpcule.publish.annotations import check_annotations
from hpcule.publish.collection import Record, planes
from hpcule.publish.copy import Publisher
from hpcule.publish.jpeg import JPEG
from hpcule.publish.readers import Rows, Values, arrays, dicom, picture, sound, upright, volume
from hpcule.store.budget import Budget
from hpcule.store.fingerprint import blocks

_DIGEST_BYTES = 16
_SILENCE = 1 << 15


class Witness:
    """A publisher that keeps a digest of each sample it hands on, which the copy has to hold."""

    def __init__(self, publisher: Publisher, source: Source) -> None:
        self._publisher, self._source = publisher, source
        self._digests = np.zeros((len(source), _DIGEST_BYTES), np.uint8)

    def publish(self, ids: Ids, clean: Samples) -> Samples:
        """See `Publisher.publish`."""
        published = self._publisher.publish(ids, clean)
        lengths = self._source.lengths(ids).tolist()
        for sample, length, values in zip(ids.tolist(), lengths, published, strict=True):
            self._digests[sample] = _digest(values[..., :length])
        return published

    def publish_native(self, sample: int, clean: Native) -> Native:
        """See `Publisher.publish_native`."""
        published = self._publisher.publish_native(sample, clean)
        self._digests[sample] = _digest(planes(published))
        return published

    def publish_recording(self, sample: int, clean: Recording) -> Recording:
        """See `Publisher.publish_recording`."""
        published = self._publisher.publish_recording(sample, clean)
        self._digests[sample] = _digest(published.samples)
        return published

    def bound(self, native: Native) -> int:
        """See `Publisher.bound`."""
        return self._publisher.bound(native)

    def confirm(self) -> None:
        """See `Publisher.confirm`."""
        self._publisher.confirm()

    def published(self, sample: int, values: Values) -> bool:
        """Whether these are the values of a sample as it was handed on."""
        return bool((self._digests[sample] == _digest(values)).all())


@dataclass(frozen=True)
class ReadBack:
    """Compares a copy with its sources.

    Attributes:
        kind: the format.
        protected: the split that was changed; the others must be as they were.
        native: whether images have their own sizes.
        witness: published the protected split.
        budget: of its samples.
    """

    kind: str
    native: bool
    protected: Source
    witness: Witness
    budget: Budget

    def check(self, made: Path, sources: Mapping[str, Source], records: Sequence[Record]) -> None:
        """Read a copy and compare it.

        Args:
            made: where it lies.
            sources: its splits.
            records: what became of each file.

        Raises:
            StoreError: it is not what was to be published.
            DataError: a source can no longer be read.
        """
        if self.kind == "folder":
            with _reading(TABLE):
                check_annotations(made, sources, records)
        for split, source in sources.items():
            folder = made if self.kind == "nnunet" else made / split
            written = [record for record in records if record.split == split and record.published]
            copied, written = ([one for one in written if one.excluded is which] for which in (True, False))
            for record in copied:
                with _reading(record.published):
                    assert source.folder is not None
                    self._check_copied(source.folder / record.file, folder / record.published)
            if self.kind in ("npz", "hdf5"):
                self._check_arrays(made if made.is_file() else next(made.iterdir()), split, source)
            elif self.kind == "webdataset":
                self._check_shards(made, split, source)
            elif isinstance(source, DicomVolumes):
                for sample, files in enumerate(source.series):
                    own = written[sample * len(files) : (sample + 1) * len(files)]
                    with _reading(own[0].published):
                        self._check_series(source, sample, [folder / record.published for record in own])
            elif isinstance(source, FrameSource):
                for number, record in enumerate(written):
                    compare = self._check_frames if self.kind == "dicom" else self._check_volume
                    with _reading(record.published):
                        compare(source, number, folder / record.published)
            else:
                for sample, record in enumerate(written):
                    with _reading(record.published):
                        self._check_file(source, sample, (folder / record.published).read_bytes(), record)

    def _check_arrays(self, path: Path, split: str, source: Source) -> None:
        prefix = f"{split}_" if split else ""
        with _reading(path.name), arrays(path, self.kind) as found:
            images = found[f"{prefix}images"]
            _require(len(source) == images.shape[0], f"it holds {images.shape[0]} images, not {len(source)}")
            for ids, clean in blocks(source, 0, len(source)):
                self._check_rows(source, ids, clean, _channels_first(images, len(ids), clean.shape))
            if source.labels is not None:
                labels = found[f"{prefix}labels"].take(len(source)).reshape(-1)
                _require(np.array_equal(labels, source.labels), "labels differ")
            if source.label_matrix is not None:
                several = found[f"{prefix}label_matrix"].take(len(source))
                _require(np.array_equal(several, source.label_matrix.values), "labels differ")
            if source.masks is not None:
                masks = found[f"{prefix}masks"]
                for expected in mask_blocks(source.masks, 0, len(source)):
                    _require(np.array_equal(masks.take(len(expected)), expected), "masks differ")

    def _check_rows(self, source: Source, ids: Ids, clean: Samples, found: Samples) -> None:
        if source is not self.protected:
            same = (found == clean).reshape(len(ids), -1).all(axis=1)
            _require(bool(same.all()), f"sample {ids[same.argmin()]} is not as it was")
            return
        if (excess := self.budget.excess(np.subtract(found, clean, dtype=np.int32))) is not None:
            row, size = excess
            raise ValueError(f"sample {ids[row]} is {self.budget.exceeded(size)}")
        for sample, length, values in zip(ids.tolist(), source.lengths(ids).tolist(), found, strict=True):
            self._require_published(sample, values[..., :length])

    def _check_shards(self, folder: Path, split: str, source: Source) -> None:
        count = 0
        for shard in sorted(folder.glob(f"{split}-*.tar" if split else "*.tar")):
            with _reading(shard.name), tarfile.open(shard) as archive:
                for member in archive:
                    file = archive.extractfile(member)
                    assert file is not None
                    sample, data = int(PurePosixPath(member.name).stem), file.read()
                    if member.name.endswith(".cls"):
                        _require(source.labels is not None and int(data) == source.labels[sample], "a label differs")
                    else:
                        _require(sample == count, f"sample {sample} stands where {count} belongs")
                        self._check_file(source, sample, data, None)
                        count += 1
        if count != len(source):
            raise _fault(split or folder.name, f"it holds {count} samples, not {len(source)}")

    def _check_file(self, source: Source, sample: int, data: bytes, record: Record | None) -> None:
        """A file that is one sample."""
        if source.rate is not None:
            self._check_recording(source, sample, data)
        elif self.native:
            native = source.native(sample)
            assert native is not None
            clean = planes(native)
            found = _in_channels(picture(data), len(clean))
            if record is not None and record.published.lower().endswith(JPEG):
                change = int(np.abs(np.subtract(found, clean, dtype=np.int32)).max())
                _require(str(change) == record.numbers["largest_change"], f"values are changed by {change} levels")
            else:
                self._check_native(source, sample, native, clean, found)
        else:
            clean = source.read(np.array([sample]))
            self._check_rows(source, np.array([sample]), clean, _in_channels(picture(data), clean.shape[1])[None])

    def _check_native(self, source: Source, sample: int, native: Native, clean: Values, found: Values) -> None:
        change = int(np.abs(np.subtract(found, clean, dtype=np.int64)).max())
        bound = self.witness.bound(native) if source is self.protected else 0
        _require(change <= bound, f"values of sample {sample} are changed by {change}, {bound} is allowed")
        if source is self.protected:
            self._require_published(sample, found)

    def _check_recording(self, source: Source, sample: int, data: bytes) -> None:
        found, own, ids = sound(data), source.recording(sample), np.array([sample])
        if own is None:
            length = int(source.lengths(ids)[0])
            clean = source.read(ids)[..., :length]
            _require((found.bits, found.rate, len(found.samples)) == (16, source.rate, 1), "its format differs")
            self._check_rows(source, ids, clean, ((found.samples >> 16) + _SILENCE).astype(np.uint16)[None, None])
            return
        _require((found.bits, found.rate) == (own.bits, own.rate), "its format differs")
        change = int(np.abs(np.subtract(found.samples, own.samples, dtype=np.int64)).max())
        bound = int(self.budget.epsilon) << 16 if source is self.protected else 0
        _require(change <= bound, f"samples are changed by {change / 2**16:g} levels of 16 bits")
        if source is self.protected:
            self._require_published(sample, found.samples)

    def _check_frames(self, source: FrameSource, file: int, path: Path) -> None:
        """A DICOM file: frames by their number."""
        found, samples = dicom(path), source.of_file(file)
        _require(len(found) == len(samples), f"it holds {len(found)} frames, not {len(samples)}")
        for sample, frame in zip(samples, found, strict=True):
            native = source.native(sample)
            self._check_native(source, sample, native, native.pixels, frame)

    def _check_series(self, source: DicomVolumes, sample: int, paths: Sequence[Path]) -> None:
        """The DICOM files of a volume, in order."""
        found = np.concatenate([dicom(path)[0] for path in paths], axis=1)
        native = source.native(sample)
        self._check_native(source, sample, native, native.pixels, found)

    def _check_volume(self, source: FrameSource, file: int, path: Path) -> None:
        """A NIfTI file: voxels by their place, slices by the number that the source gives them."""
        found, before = volume(path), volume(source.folder / source.files[file])
        _require(found.values.shape == before.values.shape, f"its shape is {found.values.shape}")
        _require(found.scale == before.scale, f"its scale is {found.scale}")
        if source is not self.protected:
            _require(np.array_equal(found.values, before.values), "its voxels are not as they were")
            return
        samples = source.of_file(file)
        if source.depth is not None:
            clean, whole = (_in_rows(one.values) for one in (before, found))
            self._check_native(source, samples[0], source.native(samples[0]), clean, whole)
            return
        places = np.ndindex(found.values.shape[2:])
        for sample, place in zip(samples, places, strict=True):
            clean, plane = (one.values[:, :, *place].T[None] for one in (before, found))
            self._check_native(source, sample, source.native(sample), clean, plane)

    def _check_copied(self, before: Path, after: Path) -> None:
        """A file that was excluded, and has the values that it had."""
        if self.kind in ("nifti", "nnunet"):
            same = np.array_equal(volume(before).values, volume(after).values, equal_nan=True)
        elif self.kind == "wav":
            same = np.array_equal(sound(before.read_bytes()).samples, sound(after.read_bytes()).samples)
        elif self.kind == "dicom":
            from pydicom import dcmread

            from hpcule.data.sources.dicom_file import read_frame, read_head

            if is_segmentation(before):
                same = np.array_equal(dcmread(before).pixel_array, dcmread(after).pixel_array)
                _require(same, "it is not as it was")
                return
            head, frames = read_head(before, decode=False), dicom(after)
            _require(len(frames) == head.frames, f"it holds {len(frames)} frames, not {head.frames}")
            same = all(np.array_equal(read_frame(before, k, head.seen).pixels, frame) for k, frame in enumerate(frames))
        else:
            same = np.array_equal(upright(before), upright(after))
        _require(same, "it is not as it was")

    def _require_published(self, sample: int, values: Values) -> None:
        _require(self.witness.published(sample, values), f"sample {sample} is not what was to be published")


def _digest(values: Values) -> Values:
    """A digest of integers of at most 32 bits and of their shape, whatever their type."""
    found = blake2b(repr(values.shape).encode(), digest_size=_DIGEST_BYTES)
    found.update(np.ascontiguousarray(values, "<i4").data)
    return np.frombuffer(found.digest(), np.uint8)


def _in_rows(voxels: Values) -> Values:
    """Voxels [X, Y, Z], and any more axes of one, as [1, Z * Y, X]."""
    columns = voxels.shape[0]
    return voxels.reshape(columns, -1, order="F").T[None]


def _channels_first(images: Rows, count: int, shape: tuple[int, ...]) -> Samples:
    rows = images.take(count)
    return (rows[:, None] if rows.ndim == 3 else rows.transpose(0, 3, 1, 2)).reshape(shape)


def _in_channels(found: Values, channels: int) -> Values:
    """The values without channels that a format adds: grey as three equal ones, transparency that hides nothing."""
    if channels in (2, 4) and len(found) in (1, 3):
        found = np.concatenate([found, np.full_like(found[:1], 255)])
    if channels <= 2 < len(found):
        _require(bool((found[:3] == found[:1]).all()), "a grey image has colours")
        found = np.concatenate([found[:1], found[3:]])
    return found


def _require(holds: bool, fault: str) -> None:
    if not holds:
        raise ValueError(fault)


@contextmanager
def _reading(file: str) -> Iterator[None]:
    """Whatever goes wrong with a published file inside the block is an error that names it."""
    try:
        yield
    except (StoreError, MemoryError):
        raise
    except Exception as error:  # a file that was written wrongly makes decoders raise what they like
        raise _fault(file, first_line(error)) from error


def _fault(file: str, fault: str) -> StoreError:
    return StoreError(
        f"{file}, read again, is not what was to be published ({fault}): nothing is published; look for a full or "
        "damaged disk and export again, and report it as a defect of hpcule if it stays (--no-check skips this check)"
    )
