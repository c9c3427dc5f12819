"""Publishing: protected samples and nothing that leads back to the clean ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hpcule.config.errors import StoreError, UsageError
from hpcule.data.source import Ids, Native, Recording, Samples, Source
from hpcule.publish.carry import budget_grid, carries, files_of, published_native, published_recording
from hpcule.publish.change import LargestChange
from hpcule.publish.collection import Compare, Record
from hpcule.publish.copy import check_out, write_copy
from hpcule.publish.formats import safe_name
from hpcule.publish.readback import ReadBack, Witness
from hpcule.publish.unchanged import UnchangedSamples
from hpcule.store.fingerprint import require_same_samples
from hpcule.store.read import StoreReader, require_unaltered
from hpcule.store.vault import Vault

if TYPE_CHECKING:
    from hpcule.publish.dates import DateShifts
    from hpcule.publish.deidentify import Policy


@dataclass(frozen=True)
class ExportSummary:
    """What was published.

    Attributes:
        path: the folder or file.
        format: one of `hpcule.publish.copy.FORMATS`.
        protected: number of protected samples, or of images where those are tiles.
        copied: number of samples by split that were copied without a perturbation.
        largest: the largest change of a sample, in the unit of the store's budget.
        change: the same for people, with its unit.
        bytes: size of all files.
        records: what became of each file, where the copy is of files.
    """

    path: Path
    format: str
    protected: int
    copied: dict[str, int]
    largest: float
    change: str
    bytes: int
    records: list[Record]


def export(
    vault: Vault,
    source: Source,
    out: Path,
    *,
    format: str | None = None,
    other_splits: Mapping[str, Source] | None = None,
    compare: Compare = lambda clean, published: {},
    jpeg_quality: int | None = None,
    dicom_tags: Policy = "basic-deidentify",
    shifts: DateShifts | None = None,
    check: bool = True,
) -> ExportSummary:
    """Write the protected samples of a store, in the format of the source they were made for or in another.

    As files, images that the source resizes come back at their own sizes.

    Args:
        vault: a complete store.
        source: the samples it was made for; of tiles, the images are written that they were cut from.
        out: see `check_out`.
        format: see there.
        other_splits: sources by split, written as they are next to the protected one.
        compare: numbers for the record of an image at its own size.
        jpeg_quality: of images at their own sizes, in a folder, JPEG files stay such; see `hpcule.publish.jpeg`.
        dicom_tags: what becomes of the tags of DICOM files; with "keep" they, and NIfTI volumes, keep their names.
        shifts: see `hpcule.publish.copy.write_copy`.
        check: read what was written, and compare it with the source, before it has its name.

    Raises:
        StoreError: the store is damaged, the source is another one, one of them changes during the export, `out` holds
            something, the disk is full, or what was written is not what was to be published.
        UsageError: the format is unknown or cannot hold the samples, or JPEG is asked for where nothing keeps its file.
        DataError: a sample cannot be read.
    """
    others, files = {split: files_of(other) for split, other in (other_splits or {}).items()}, files_of(source)
    with StoreReader(vault, cache_bytes=0) as reader:
        kind, native = check_out(out, format, files, others), carries(reader.manifest, source)
        if files is not source and kind in ("npz", "hdf5"):
            raise UsageError(f"{source.name}: images of their own sizes do not go into {kind}: choose another format")
        if jpeg_quality is not None:
            _check_jpeg(jpeg_quality, native and kind == "folder")
        require_unaltered(vault, reader.manifest)
        require_same_samples(reader.manifest, source)
        publisher, name = _Publisher(reader, source), f"{safe_name(source.name)}-protected"
        witness = Witness(publisher, files)
        read_back = ReadBack(kind, native, files, witness, reader.manifest.budget)
        written, records = write_copy(
            out,
            kind,
            files,
            others,
            witness if check else publisher,
            name,
            native=native,
            compare=compare,
            jpeg_quality=jpeg_quality,
            dicom_tags=dicom_tags,
            shifts=shifts,
            check=read_back.check if check else None,
        )
    copied, largest = {name: len(other) for name, other in others.items()}, publisher.largest
    return ExportSummary(out.absolute(), kind, len(files), copied, largest.size, str(largest), written, records)


class _Publisher:
    """Publishes blocks of samples and checks each sample's budget on what is published."""

    def __init__(self, reader: StoreReader, source: Source) -> None:
        self._reader, self._source = reader, source
        self._unchanged = UnchangedSamples(reader, source)
        manifest = reader.manifest
        in_stored = manifest.config.get("budget_unit") == "stored"
        self.largest = LargestChange(manifest.budget, manifest.levels, in_stored=in_stored)

    def publish(self, ids: Ids, clean: Samples) -> Samples:
        self._unchanged.add(ids, clean)
        published = self._reader.published(ids, clean)
        manifest = self._reader.manifest
        changes = np.subtract(published, clean, dtype=np.int32)
        sizes = manifest.budget.spent(changes)
        worst = int(sizes.argmax())
        if sizes[worst] > manifest.epsilon:
            raise StoreError(
                f"store {self._reader.path}: sample {ids[worst]} is {manifest.budget.exceeded(sizes[worst])}; "
                "`hpcule verify` says more"
            )
        self.largest.add(float(sizes[worst]), float(np.abs(changes).max()))
        return published

    def publish_native(self, sample: int, clean: Native) -> Native:
        self._unchanged.add_native(sample, clean)
        published = published_native(self._reader, self._source, sample, clean)
        change = int(np.abs(np.subtract(published.pixels, clean.pixels, dtype=np.int32)).max())
        grid = budget_grid(self._reader.manifest, clean)
        if change > self.bound(clean):
            unit = "levels" if grid is None else "stored values"
            raise StoreError(
                f"store {self._reader.path}: sample {sample} would change by {change} {unit}; `hpcule verify` says more"
            )
        levels = change / abs(grid.unit) if grid is not None and change else float(change)
        self.largest.add(levels, levels, None if grid is None else change)
        return published

    def bound(self, native: Native) -> int:
        """See `Publisher.bound`."""
        manifest = self._reader.manifest
        grid, epsilon = budget_grid(manifest, native), manifest.epsilon
        return int(epsilon) if grid is None else grid.bound(epsilon)

    def publish_recording(self, sample: int, clean: Recording) -> Recording:
        self._unchanged.check_recording(sample, clean)
        return published_recording(self._reader, sample, clean)

    def confirm(self) -> None:
        self._unchanged.confirm()


def _check_jpeg(quality: int, files: bool) -> None:
    if not 1 <= quality <= 100:
        raise UsageError(f"--jpeg-quality {quality}: valid are 1 to 100")
    if not files:
        raise UsageError(
            "--jpeg-quality is for a folder of images that were crafted at image_size and come back as files of their "
            "own sizes: leave it out"
        )
