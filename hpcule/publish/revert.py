"""Taking the protection off again: the owner's way back from a published copy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from glob import escape
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hpcule.config.errors import StoreError, UsageError
from hpcule.data.annotations import ChosenMasks
from hpcule.data.opening import Opening
from hpcule.data.source import Ids, Native, Recording, Samples, Source
from hpcule.data.sources.layout import is_excluded
from hpcule.publish.carry import carries, own_size
from hpcule.publish.copy import check_out, write_copy
from hpcule.publish.formats import safe_name
from hpcule.publish.records import ExportRecord, last_export, read_records
from hpcule.store.fingerprint import has_same_samples, require_same_samples
from hpcule.store.manifest import Manifest
from hpcule.store.read import StoreReader, load_labels, require_unaltered
from hpcule.store.vault import Vault


@dataclass(frozen=True)
class RevertSummary:
    """What was taken off, and how sure that is.

    Attributes:
        path: the folder or file.
        reverted: number of samples that the perturbation was taken off.
        missing: number of the store's samples that the copy lacks.
        uncertain: values that may have been cut off at an end of the grid; they stay as published.
        uncertain_samples: samples with such values.
        foreign: samples that cannot have been published from this store, or were changed since.
        identical: whether the samples are the original ones; None where that cannot be known.
    """

    path: Path
    reverted: int
    missing: int
    uncertain: int
    uncertain_samples: int
    foreign: int
    identical: bool | None


def revert(
    vault: Vault,
    copy: Source,
    out: Path,
    *,
    other_splits: Mapping[str, Source] | None = None,
    originals: Source | None = None,
    export: ExportRecord | None = None,
) -> RevertSummary:
    """Take a store's perturbation off the protected samples of a published copy, in the copy's own format.

    Args:
        vault: a complete store.
        copy: the protected split as it was published, opened at the store's working size.
        out: a folder that is absent or empty; for "npz" and "hdf5" it may be the file itself.
        other_splits: of the copy, written as they are.
        originals: the samples that the store was made for, to compare with.
        export: the export that the copy is of; None: the last one.

    Raises:
        StoreError: the store is damaged, the copy is not one of it, `out` holds something, the disk is full.
        DataError: a sample cannot be read.
        UsageError: the copy is of DICOM or NIfTI files, or the store of tiles, or of a texture that follows the
            contrast of originals of other sizes.
    """
    others = dict(other_splits or {})
    if copy.kind in ("dicom", "nifti"):
        raise UsageError(
            f"{copy.kind} files cannot be reverted, as their tags and names were changed: take the originals"
        )
    with StoreReader(vault) as reader:
        if reader.manifest.opening.tile_size:
            raise UsageError(f"{vault.path} is of tiles, which cannot be reverted: take the originals")
        kind = check_out(out, None, copy, others)
        require_unaltered(vault, reader.manifest)
        if originals is not None:
            require_same_samples(reader.manifest, originals)
        reverter = _Reverter(reader, copy, export or last_export(vault.path), originals)
        name = safe_name(copy.name).removesuffix("-protected")
        write_copy(out, kind, copy, others, reverter, name, native=reverter.native, private=True)
        return RevertSummary(
            out.absolute(),
            len(reverter.ids),
            reader.manifest.n - len(reverter.ids),
            reverter.uncertain,
            reverter.uncertain_samples,
            reverter.foreign,
            reverter.identical(out, kind, others),
        )


def take_off(
    published: Samples, delta: npt.NDArray[np.integer], levels: int, *, cut: bool
) -> tuple[Samples, npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """The clean values, which of them are uncertain, and which are impossible.

    A value that was cut off at an end of the grid could have been any within the perturbation of that end. It stays as
    it is, since black and white were most often so before.

    Args:
        published: uint8 or uint16, of any shape.
        delta: of that shape, in levels.
        levels: the largest value of the grid.
        cut: whether the sum may have been cut off.
    """
    clean = np.subtract(published, delta, dtype=np.int32)
    at_an_end = ((published == 0) & (delta < 0)) | ((published == levels) & (delta > 0))
    uncertain = at_an_end & cut
    impossible = ((clean < 0) | (clean > levels)) & ~uncertain
    restored = np.where(uncertain, published, np.clip(clean, 0, levels)).astype(published.dtype)
    return restored, uncertain, impossible


class _Reverter:
    """Takes the perturbation off, and counts what is not certain about it.

    Attributes:
        ids: int64 [m], of the copy's samples in the store.
        native: whether samples are at their own sizes.
        uncertain: see `RevertSummary`.
        uncertain_samples: see `RevertSummary`.
        foreign: see `RevertSummary`.
    """

    def __init__(self, reader: StoreReader, copy: Source, export: ExportRecord, originals: Source | None) -> None:
        self.ids, self.native = _ids(reader, copy, export), carries(reader.manifest, copy)
        self.uncertain = self.uncertain_samples = self.foreign = 0
        self._reader, self._copy, self._export, self._originals = reader, copy, export, originals
        self._differ = 0

    def publish(self, ids: Ids, clean: Samples) -> Samples:
        """See `Publisher.publish`; here the other way round."""
        of_store, manifest = self.ids[ids], self._reader.manifest
        # By sample it is stored as it was after the cut.
        cut = manifest.unit != "sample"
        restored, *doubts = take_off(clean, self._reader.delta_on(of_store, clean), manifest.levels, cut=cut)
        self._count(*doubts)
        if self._originals is not None:
            self._differ += int((restored != self._originals.read(of_store)).any((1, 2, 3)).sum())
        return restored

    def publish_native(self, sample: int, clean: Native) -> Native:
        """See `Publisher.publish_native`; here the other way round.

        Raises:
            UsageError: the perturbation cannot be found without the original.
        """
        of_store, manifest = int(self.ids[sample]), self._reader.manifest
        size = clean.pixels.shape[1:]
        if manifest.texture is not None and manifest.texture.flat < 1 and size != manifest.sample_shape[1:]:
            raise UsageError(
                f"{self._copy.file_name(sample)}: with method.flat={manifest.texture.flat:g} the perturbation of an "
                "image of its own size depends on the original, and cannot be reverted: take the originals"
            )
        delta = np.rint(own_size(self._reader, of_store, clean)).astype(np.int32)
        cut = manifest.unit != "sample" or size != manifest.sample_shape[1:]
        restored, *doubts = take_off(clean.pixels, delta, manifest.levels, cut=cut)
        self._count(*(doubt[None] for doubt in doubts))
        if self._originals is not None:
            original = self._originals.native(of_store)
            self._differ += original is None or not np.array_equal(original.pixels, restored)
        return clean._replace(pixels=restored)

    def publish_recording(self, sample: int, clean: Recording) -> Recording:
        """Not yet the other way round.

        Raises:
            StoreError: always.
        """
        seen = f"{len(clean.samples)} channel(s) of {clean.bits} bits in {clean.format}"
        raise StoreError(
            f"{self._copy.file_name(sample)} has {seen}: only mono WAV files of 16 bits can be reverted; "
            "take the originals"
        )

    def bound(self, native: Native) -> int:
        """See `Publisher.bound`."""
        return int(self._reader.manifest.epsilon)

    def confirm(self) -> None:
        """See `Publisher.confirm`: what was taken off was that of an unchanged store."""
        require_unaltered(self._reader.vault, self._reader.manifest)

    def identical(self, out: Path, kind: str, others: Mapping[str, Source]) -> bool | None:
        """Whether what was written is what the store was made for, as far as can be known."""
        manifest = self._reader.manifest
        if self._originals is not None and (self._differ or len(self.ids) == manifest.n):
            return not self._differ
        if len(self.ids) < manifest.n:
            return None
        written = out if kind not in ("npz", "hdf5") or out.is_file() else next(out.iterdir())
        split = self._copy.split if others else "all"
        found = _Ordered(open_copy(manifest, written, split, self._export), self._reader, self.ids)
        if not has_same_samples(manifest, found):
            return False
        # The fingerprint is of the samples at the working size.
        return None if self.native and self.uncertain else True

    def _count(self, uncertain: npt.NDArray[np.bool_], impossible: npt.NDArray[np.bool_]) -> None:
        axes = (1, 2, 3)
        self.uncertain += int(uncertain.sum())
        self.uncertain_samples += int(uncertain.any(axes).sum())
        self.foreign += int(impossible.any(axes).sum())


class _Ordered(Source):
    """Samples in the order of the store, with its classes."""

    def __init__(self, source: Source, reader: StoreReader, ids: Ids) -> None:
        manifest = reader.manifest
        self.name, self.kind, self.split = source.name, source.kind, source.split
        self.shape, self.levels, self.class_names = source.shape, source.levels, source.class_names
        found = [load_labels(reader.vault, manifest, entry) for entry in manifest.shards]
        labels = [part for part in found if part is not None]
        self.labels = np.concatenate(labels) if labels else None
        self._source, self._places = source, np.argsort(ids)
        self.label_matrix = source.label_matrix.of(self._places) if source.label_matrix else None
        self.masks = ChosenMasks(source.masks, self._places) if source.masks else None

    def __len__(self) -> int:
        return len(self._places)

    def read(self, ids: Ids) -> Samples:
        return self._source.read(self._places[ids])


def _ids(reader: StoreReader, copy: Source, export: ExportRecord) -> Ids:
    """The number that each sample of a copy has in the store.

    Raises:
        StoreError: the copy holds other samples, or the store has no record of its files.
    """
    manifest = reader.manifest
    if (copy.shape, copy.levels) != (manifest.sample_shape, manifest.levels):
        wrong = f"samples of shape {copy.shape} and {copy.levels} levels"
        raise StoreError(
            f"{copy.name} was not published from {reader.path}: {wrong}, not {manifest.sample_shape} and "
            f"{manifest.levels}"
        )
    if copy.file_name(0) is None:
        if len(copy) != manifest.n:
            raise StoreError(f"{copy.name} was not published from {reader.path}: {len(copy)} samples, not {manifest.n}")
        return np.arange(manifest.n)
    protected = [record.published for record in read_records(export.records) if record.protected]
    numbers = {name: number for number, name in enumerate(protected)}
    files = [copy.file_name(sample) or "" for sample in range(len(copy))]
    if unknown := [file for file in files if file not in numbers]:
        raise StoreError(
            f"{len(unknown)} file(s) of {copy.name} are not of this export from {reader.path}, "
            f"{unknown[0]} among them: take them out, or export once more and take the copy that this leaves"
        )
    return np.array([numbers[file] for file in files])


def open_copy(manifest: Manifest, copy: Path, split: str, export: ExportRecord) -> Source:
    """A split of a published copy, images in folders with their own sizes behind the store's working size.

    Args:
        manifest: of the store.
        copy: its folder or file, or what was reverted from it.
        split: see `Opening.source`.
        export: the export that it is of.

    Raises:
        HpculeError: see `Opening.source`.
    """
    opening = Opening()
    if copy.is_dir():
        exclude = _excluded_in(manifest.opening.exclude, export)
        if manifest.source.kind == "wav":
            # All recordings had one length, whatever the longest one of a copy is.
            opening = Opening(clip_length=manifest.sample_shape[2], exclude=exclude)
        else:
            opening = Opening(image_size=manifest.working_size, exclude=exclude)
    return opening.source(str(copy), split)


def _excluded_in(patterns: tuple[str, ...], export: ExportRecord) -> tuple[str, ...]:
    """Patterns of the files of a copy that are no samples, some of which have got other names than in the data."""
    if not patterns or not export.records.exists():
        return patterns
    records = [record for record in read_records(export.records) if record.published]
    excluded, samples = (
        [Path(one.split, one.published) for one in records if one.excluded is so] for so in (True, False)
    )
    # A pattern may match samples now: with *.jpg left out, a.jpg has become a-2.png next to the sample a.png.
    still = tuple(one for one in patterns if not any(is_excluded(path, Path(), (one,)) for path in samples))
    renamed = (path.as_posix() for path in excluded if not is_excluded(path, Path(), still))
    return (*still, *map(escape, renamed))
