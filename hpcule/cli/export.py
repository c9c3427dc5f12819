"""`hpcule export STORE --data DATA --out DIR`: the protected copy, and nothing that leads back."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from hpcule.cli.options import add_data


def add_to(verbs: Any) -> None:
    """Declare the verb."""
    parser = verbs.add_parser("export", help="write the protected copy to publish")
    parser.add_argument("store", type=Path, metavar="STORE")
    add_data(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="must be absent or empty")
    parser.add_argument(
        "--format",
        choices=("folder", "wav", "npz", "hdf5"),
        help="default: the kind of DATA; folder: PNG images",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Export."""
    from hpcule.data.open import list_splits, open_source
    from hpcule.store.export import export
    from hpcule.store.manifest import read_manifest

    manifest = read_manifest(options.store)
    skip = bool(manifest.config["skip_unreadable"])
    source = open_source(options.data, image_size=manifest.working_size, skip_unreadable=skip)
    others = {
        split: open_source(options.data, split, image_size=manifest.working_size, skip_unreadable=skip)
        for split in list_splits(options.data)
        if split != source.split
    }
    summary = export(options.store, source, options.out, format=options.format, other_splits=others)
    print(
        f"Wrote {summary.protected:,} protected samples to {summary.path} (largest change {summary.largest:g} levels)."
    )
    for split, count in summary.copied.items():
        print(f"The {count:,} samples of split '{split}' were copied unchanged: they are not protected.")
