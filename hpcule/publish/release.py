"""A protected copy of DATA with all of its splits, and what the store keeps about it: hash list and record of files."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from hpcule.config.errors import DataError, UsageError
from hpcule.data.find import data_path
from hpcule.data.left_out import declared_notice, left_out_notice, subset_notice, why_left_out
from hpcule.data.masks import mask_notice
from hpcule.data.source import Native, Source
from hpcule.data.sources.dicom import DicomSource
from hpcule.data.sources.volumes.dicom import DicomVolumes
from hpcule.measure.visibility import linf, psnr, ssim
from hpcule.publish.carry import files_of
from hpcule.publish.collection import Record
from hpcule.publish.export import ExportSummary, export
from hpcule.publish.hashes import file_hashes
from hpcule.publish.jpeg import warning
from hpcule.publish.records import keep_records
from hpcule.store.manifest import read_manifest
from hpcule.store.staged import require_apart
from hpcule.store.vault import Vault

if TYPE_CHECKING:
    from hpcule.publish.dates import DateShifts
    from hpcule.publish.deidentify import Policy


@dataclass(frozen=True)
class Release:
    """A copy that was written.

    Attributes:
        summary: what was published.
        digest: SHA-256 of the hash list of its files, in hexadecimal digits.
        left_out: how many files and samples are no part of the copy, and why, for people; "" if there are none.
        warning: how much of the perturbation JPEG took away, for people; "" where nothing is to be said.
        declared: how many files say that their pixels show who the patient is, for people; "" if there are none.
    """

    summary: ExportSummary
    digest: str
    left_out: str
    warning: str
    declared: str


def release(
    vault: Vault,
    data: str,
    out: Path,
    *,
    format: str | None = None,
    jpeg_quality: int | None = None,
    dicom_tags: Policy = "basic-deidentify",
    shift_dates: bool = False,
    strict: bool = False,
    check: bool = True,
) -> Release:
    """Export the protected split of DATA and, without a perturbation, its other splits; note in the store what was
    written.

    Args:
        vault: a complete store.
        data: what it was made for: a path or a name.
        out: see `hpcule.publish.copy.check_out`.
        format: see there.
        jpeg_quality: see `hpcule.publish.export.export`.
        dicom_tags: see there.
        shift_dates: shift the dates of DICOM files by days that are random for each patient, instead of removing them.
        strict: refuse files that say that their pixels show who the patient is.
        check: see there.

    Raises:
        StoreError, UsageError: see `hpcule.publish.export.export`; the dates of these files cannot be shifted.
        DataError: see there, or `strict` refuses files.
    """
    require_apart(out, {"the store": vault.path, "the data": data_path(data)})
    manifest = read_manifest(vault)
    source = manifest.opening.source(data)
    whole = replace(manifest.opening, subset=None)
    others = {split: whole.source(data, split) for split in whole.splits(data) if split != source.split}
    declared = declared_notice(source, *others.values())
    if declared and strict:
        raise DataError(
            f"{source.name}: {declared}, and --strict refuses them: clear their pixels, or leave them out with "
            "exclude=[PATTERN] when the store is crafted"
        )
    shifts = _shifts(vault, [source, *others.values()], dicom_tags, format) if shift_dates else None
    summary = export(
        vault,
        source,
        out,
        format=format,
        other_splits=others,
        compare=native_figures,
        jpeg_quality=jpeg_quality,
        dicom_tags=dicom_tags,
        shifts=shifts,
        check=check,
    )
    everything = (source, *others.values())
    absent = filter(None, (left_out_notice(*everything), mask_notice(source), subset_notice(source)))
    records = [*summary.records, *left_out(source, others, summary.records)] if summary.records else []
    policy = {
        "format": summary.format,
        "jpeg_quality": jpeg_quality,
        "dicom_tags": dicom_tags,
        "shift_dates": shift_dates,
    }
    facts = {"path": str(summary.path), "time": time.strftime("%Y-%m-%d %H:%M:%S %z"), **policy}
    counts = {"protected": summary.protected, "copied": summary.copied, "change": summary.change}
    digest = keep_records(vault.path, file_hashes(summary.path), records, {**facts, **counts})
    numbers = [record.numbers for record in summary.records if record.protected]
    lost = warning(numbers, jpeg_quality, manifest.epsilon) if jpeg_quality else None
    return Release(summary, digest, "; ".join(absent), lost or "", declared or "")


def _shifts(vault: Vault, sources: Sequence[Source], dicom_tags: Policy, format: str | None) -> DateShifts:
    """The days by patient of all files, those of earlier exports among them; they are kept in the store.

    Raises:
        UsageError: no DICOM files are written, or another policy treats their dates.
    """
    opened = [one.slices if isinstance(one, DicomVolumes) else one for one in map(files_of, sources)]
    files = [one for one in opened if isinstance(one, DicomSource)]
    if len(files) < len(sources) or (format or "dicom") != "dicom" or dicom_tags != "basic-deidentify":
        raise UsageError("--shift-dates is for DICOM files and --dicom-tags basic-deidentify: leave it out")
    from hpcule.publish.dates import read_shifts

    shifts = read_shifts(vault)
    shifts.meet(one.patient(file) for one in files for file in range(len(one.files)))
    shifts.write(vault)
    return shifts


def native_figures(clean: Native, published: Native) -> dict[str, str]:
    """Size, PSNR and SSIM of an image at its own size."""
    height, width = clean.pixels.shape[1:]
    before, after = (torch.from_numpy(np.array(image.pixels))[None] for image in (clean, published))
    return {
        "width": str(width),
        "height": str(height),
        "largest_change": str(int(linf(before, after))),
        "psnr_db": f"{float(psnr(before, after, 255)):.2f}",
        "ssim": f"{float(ssim(before, after, 255)):.4f}",
    }


def left_out(source: Source, others: Mapping[str, Source], records: Sequence[Record]) -> list[Record]:
    """Records of the files that are no samples and have none among `records`."""
    known = {(record.split, record.file) for record in records}
    everything = {"" if source.split == "all" else source.split: source, **others}
    everything = {split: files_of(one) for split, one in everything.items()}
    return [
        Record(split, file, "", False, why, {})
        for split, one in everything.items()
        for file, why in (
            *((entry.file, why_left_out(entry)) for entry in one.left_out),
            *((file, "of another kind: left out") for file in one.ignored),
        )
        if (split, file) not in known
    ]
