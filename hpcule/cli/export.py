"""`hpcule export STORE --data DATA --out DIR`: the protected copy, and nothing that leads back."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from hpcule.cli.options import Verbs, add_access, add_data, positive
from hpcule.config.errors import IN_STORE, setting_in

if TYPE_CHECKING:
    from hpcule.publish.export import ExportSummary


def add_to(verbs: Verbs) -> None:
    """Declare the verb."""
    parser = verbs.add_parser("export", help="write the protected copy to publish")
    parser.add_argument("store", type=Path, metavar="STORE")
    add_access(parser, "or files that say that their pixels show who the patient is")
    add_data(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="must be absent or empty")
    parser.add_argument(
        "--format",
        choices=("folder", "wav", "webdataset", "dicom", "nifti", "nnunet", "npz", "hdf5"),
        help="default: the kind of DATA; folder: PNG images; wav: WAV and FLAC as they were; webdataset: tar files; "
        "nnunet: volumes and masks as nnU-Net and MONAI read them",
    )
    parser.add_argument(
        "--jpeg-quality",
        type=positive,
        metavar="Q",
        help="keep JPEG files JPEG, which loses protection: say how much (default: write them without loss)",
    )
    parser.add_argument(
        "--dicom-tags",
        choices=("keep", "basic-deidentify", "minimal"),
        default="basic-deidentify",
        help="tags of DICOM files: all, those of the standard's basic profile (default), or the fewest; with keep, "
        "they and NIfTI volumes keep their names, too",
    )
    parser.add_argument(
        "--shift-dates",
        action="store_true",
        help="shift dates of DICOM files by days that are random and secret for each patient (default: remove them)",
    )
    parser.add_argument(
        "--no-check", dest="check", action="store_false", help="do not read the copy again to compare it with DATA"
    )
    parser.set_defaults(run=run)


@setting_in(IN_STORE)
def run(options: argparse.Namespace) -> None:
    """Write the copy to publish, and into the store the records of what was published."""
    from hpcule.cli.opened import opened_vault, say
    from hpcule.publish.release import release
    from hpcule.store.staged import left_behind

    say(left_behind(options.out))
    written = release(
        opened_vault(options),
        options.data,
        options.out,
        format=options.format,
        jpeg_quality=options.jpeg_quality,
        dicom_tags=options.dicom_tags,
        shift_dates=options.shift_dates,
        strict=options.strict,
        check=options.check,
    )
    say(written.left_out)
    if written.declared:
        say(f"{written.declared}: no policy changes pixels, and the copies are not marked as de-identified")
    print_export(options, written.summary, written.digest)
    if written.warning:
        print(written.warning)


def how_copied(format: str, dicom_tags: str, jpeg_quality: int | None) -> str:
    """What became of the files of a split that is not protected, for people."""
    if jpeg_quality:
        return "copied, JPEG files encoded again"
    kept = dicom_tags == "keep"
    return {
        "dicom": f"copied, pixels as they were, tags{'' if kept else ' and names'} by the policy {dicom_tags}",
        "nifti": f"copied, voxels as they were, without texts in the header{'' if kept else ', under new names'}",
        "nnunet": f"copied, voxels as they were, without texts in the header{'' if kept else ', under new names'}",
        "folder": "copied, pixels as they were, without metadata",
        "webdataset": "copied, samples as they were, without metadata",
        "wav": "copied, samples as they were, without metadata",
    }.get(format, "copied unchanged")


def print_export(options: argparse.Namespace, summary: ExportSummary, digest: str) -> None:
    """Print for people what was published, and where its records are."""
    from hpcule.cli.opened import show
    from hpcule.data.sources.mask_files import MASK
    from hpcule.publish.records import EXPORTED, RECORD

    show(f"Wrote {summary.protected:,} protected samples to {summary.path} (largest change: {summary.change}).")
    for split, count in summary.copied.items():
        how = how_copied(summary.format, options.dicom_tags, options.jpeg_quality)
        show(f"The {count:,} samples of split '{split}' were {how}: they are not protected.")
    # Only files of stored levels that were to be protected have a budget in them.
    if unchanged := sum("stored_budget" in record.numbers and not record.protected for record in summary.records):
        show(f"{unchanged:,} files have too narrow a window for this budget and are unchanged: they are not protected.")
    if masks := sum(record.excluded and record.note.startswith(MASK) for record in summary.records):
        show(f"{masks:,} masks were copied as they are.")
    excluded = [
        record
        for record in summary.records
        if (record.excluded or record.note.startswith("excluded")) and not record.note.startswith(MASK)
    ]
    if excluded:
        copied = sum(record.excluded for record in excluded)
        gone = f", and {len(excluded) - copied:,} cannot be read and are left out" if copied < len(excluded) else ""
        show(f"{copied:,} files that match exclude were copied without a perturbation: they are not protected{gone}.")
    show(f"The hash list of the copy is {options.store / EXPORTED}, its SHA-256 {digest}.")
    if summary.records:
        show(f"What became of every file stands in {options.store / RECORD}.")
