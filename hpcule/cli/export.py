"""`hpcule export STORE --data DATA --out DIR`: the protected copy, and nothing that leads back."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcule.cli.options import add_access, add_data, positive

if TYPE_CHECKING:
    from hpcule.data.source import Native, Source
    from hpcule.publish.collection import Record
    from hpcule.publish.export import ExportSummary


def add_to(verbs: Any) -> None:
    """Declare the verb."""
    parser = verbs.add_parser("export", help="write the protected copy to publish")
    parser.add_argument("store", type=Path, metavar="STORE")
    add_access(parser)
    add_data(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="must be absent or empty")
    parser.add_argument(
        "--format",
        choices=("folder", "wav", "webdataset", "dicom", "nifti", "npz", "hdf5"),
        help="default: the kind of DATA; folder: PNG images; wav: WAV and FLAC as they were; webdataset: tar files",
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
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Export."""
    from dataclasses import replace

    from hpcule.cli.opened import opened_vault
    from hpcule.data.opening import list_splits
    from hpcule.publish.collection import table
    from hpcule.publish.export import export
    from hpcule.publish.hashes import EXPORTED, file_hashes, hash_list
    from hpcule.publish.jpeg import warning
    from hpcule.publish.revert import RECORD
    from hpcule.store.files import private_directory, write_atomically
    from hpcule.store.manifest import read_manifest

    vault = opened_vault(options)
    manifest = read_manifest(vault)
    source = manifest.opening.source(options.data)
    whole = replace(manifest.opening, subset=None)
    others = {split: whole.source(options.data, split) for split in list_splits(options.data) if split != source.split}
    summary = export(
        vault,
        source,
        options.out,
        format=options.format,
        other_splits=others,
        compare=compare,
        jpeg_quality=options.jpeg_quality,
        dicom_tags=options.dicom_tags,
    )
    hashes = hash_list(file_hashes(summary.path))
    private_directory(options.store / "run")
    write_atomically(options.store / EXPORTED, hashes)
    if summary.records:
        write_atomically(options.store / RECORD, table([*summary.records, *left_out(source, others)]))
    show(options, summary, sha256(hashes).hexdigest())
    numbers = [record.numbers for record in summary.records if record.protected]
    if options.jpeg_quality and (lost := warning(numbers, options.jpeg_quality, manifest.epsilon)):
        print(lost)


def show(options: argparse.Namespace, summary: ExportSummary, digest: str) -> None:
    """Print for people what was published, and where its records are."""
    from hpcule.publish.hashes import EXPORTED
    from hpcule.publish.revert import RECORD

    print(
        f"Wrote {summary.protected:,} protected samples to {summary.path} (largest change {summary.largest:g} levels)."
    )
    for split, count in summary.copied.items():
        how = "copied, JPEG files encoded anew" if options.jpeg_quality else "copied unchanged"
        print(f"The {count:,} samples of split '{split}' were {how}: they are not protected.")
    # Only files of stored levels that were to be protected have a budget in them.
    if unchanged := sum("stored_budget" in record.numbers and not record.protected for record in summary.records):
        print(
            f"{unchanged:,} files have too narrow a window for this budget and are unchanged: they are not protected."
        )
    print(f"The hash list of the copy is {options.store / EXPORTED}, its SHA-256 {digest}.")
    if summary.records:
        print(f"What became of every file stands in {options.store / RECORD}.")


def compare(clean: Native, published: Native) -> dict[str, str]:
    """Size, PSNR and SSIM of an image at its own size."""
    import numpy as np
    import torch

    from hpcule.measure.visibility import linf, psnr, ssim

    height, width = clean.pixels.shape[1:]
    before, after = (torch.from_numpy(np.array(image.pixels))[None] for image in (clean, published))
    return {
        "width": str(width),
        "height": str(height),
        "largest_change": str(int(linf(before, after))),
        "psnr_db": f"{float(psnr(before, after, 255)):.2f}",
        "ssim": f"{float(ssim(before, after, 255)):.4f}",
    }


def left_out(source: Source, others: Mapping[str, Source]) -> list[Record]:
    """Records of the files that cannot be decoded."""
    from hpcule.publish.carry import files_of
    from hpcule.publish.collection import Record

    everything = {"" if source.split == "all" else source.split: source, **others}
    everything = {split: files_of(one) for split, one in everything.items()}
    return [
        Record(split, file, "", False, "cannot be decoded: left out", {})
        for split, one in everything.items()
        for file in getattr(one, "skipped", ())
    ]
