"""`hpcule inspect DIR`: what a published copy holds, for somebody who has nothing but the copy."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, final

from hpcule.cli.options import Verbs, add_json

if TYPE_CHECKING:
    from hpcule.data.source import Source


class SplitDocument(TypedDict):
    """One split of a copy; `shape` is that of all its samples, [C, H, W], or None where they differ.

    `labelled` says whether samples have classes; `labels` are the names of several labels each, `masks` those of the
    classes of pixels.
    """

    samples: int
    shape: list[int] | None
    labelled: bool
    labels: list[str]
    masks: list[str]


@final
class CopyDocument(TypedDict):
    """What a published copy holds.

    `levels` is the largest value, `rate` the samples a second of recordings, and `declared` how many files say that
    their pixels show who the patient is, in words, or None.
    """

    kind: str
    levels: int
    rate: int | None
    classes: list[str] | None
    splits: dict[str, SplitDocument]
    declared: str | None


@final
class UnreadableDocument(TypedDict):
    """A copy that hpcule cannot read as samples; `unreadable` is the reason."""

    unreadable: str


class FilesDocument(TypedDict):
    """The files of a copy; `digest` is the SHA-256 of their hash list."""

    files: int
    bytes: int
    digest: str


def add_to(verbs: Verbs) -> None:
    """Declare the verb."""
    parser = verbs.add_parser("inspect", help="show what a published copy holds: kind, splits, files, hashes")
    parser.add_argument("copy", type=Path, metavar="DIR", help="a published folder, npz or HDF5 file")
    parser.add_argument(
        "--hashes", type=Path, metavar="FILE", help="write SHA-256 and path of every file here, as sha256sum does"
    )
    add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Print what a published copy holds, and the hashes of its files."""
    from dataclasses import asdict
    from hashlib import sha256
    from os.path import lexists

    from hpcule.cli.opened import single_file
    from hpcule.config.errors import UsageError
    from hpcule.publish.hashes import file_hashes, hash_list
    from hpcule.store.files import write_atomically
    from hpcule.store.vault import MANIFEST

    copy: Path = options.copy
    if not copy.exists():
        raise UsageError(f"{copy} is not there: name a published folder, npz or HDF5 file")
    if (copy / MANIFEST).exists():
        raise UsageError(f"{copy} is a store, which is private; see `hpcule verify {copy}`")
    if options.hashes and lexists(options.hashes):
        raise UsageError(f"{options.hashes} is there already: name a new file for the hash list")
    hashes = file_hashes(copy)
    listed = hash_list(hashes)
    contents = describe_copy(single_file(copy))
    files: FilesDocument = {
        "files": len(hashes),
        "bytes": sum(entry.bytes for entry in hashes),
        "digest": sha256(listed).hexdigest(),
    }
    if options.hashes:
        write_atomically(options.hashes, listed, 0o644)
    if options.json:
        print(json.dumps({**contents, **files, "hashes": [asdict(entry) for entry in hashes]}))
    else:
        print_copy(copy, contents, files)


def describe_copy(copy: Path) -> CopyDocument | UnreadableDocument:
    """Open every split of a copy and say what it holds."""
    from hpcule.config.errors import HpculeError, OpeningError
    from hpcule.data.left_out import declared_notice
    from hpcule.data.opening import Opening

    try:
        opened = {split: _open(copy, split) for split in Opening().splits(str(copy))}
    except OpeningError as error:
        return {"unreadable": error.seen}
    except HpculeError as error:
        return {"unreadable": str(error)}
    first, _ = next(iter(opened.values()))
    return {
        "kind": first.kind,
        "levels": first.levels,
        "rate": first.rate,
        "classes": list(first.class_names) if first.class_names is not None else None,
        "splits": {
            split: {
                "samples": len(source),
                "shape": shape,
                "labelled": source.labels is not None,
                "labels": list(source.label_matrix.names) if source.label_matrix else [],
                "masks": list(source.masks.names) if source.masks else [],
            }
            for split, (source, shape) in opened.items()
        },
        "declared": declared_notice(*(source for source, _ in opened.values())),
    }


def _open(copy: Path, split: str) -> tuple[Source, list[int] | None]:
    """A split, and the shape [C, H, W] that all its samples have, or [C, D, H, W] of volumes; None for several."""
    import numpy as np

    from hpcule.config.errors import DataError
    from hpcule.data.opening import Opening

    try:
        source = Opening().source(str(copy), split)
    except DataError:
        # Perhaps images of different sizes, which can be opened only at a common one.
        return Opening(image_size=32).source(str(copy), split), None
    same = source.rate is None or len(np.unique(source.lengths(np.arange(len(source))))) == 1
    channels, height, width = source.shape
    volumes = [channels, source.depth, height // source.depth, width] if source.depth is not None else None
    return source, (volumes or list(source.shape)) if same else None


def print_copy(copy: Path, contents: CopyDocument | UnreadableDocument, files: FilesDocument) -> None:
    """Print for people."""
    from hpcule.cli.opened import show

    if "unreadable" in contents:
        show(f"{copy}: no samples that hpcule reads: {contents['unreadable']}")
    else:
        noun = "images" if contents["rate"] is None else f"recordings, {contents['rate']:,} samples a second"
        classes = f", {len(contents['classes'])} classes" if contents["classes"] else ""
        show(f"{copy}: {noun} ({contents['kind']}), values 0 to {contents['levels']}{classes}")
        for split, what in contents["splits"].items():
            shape = " x ".join(map(str, what["shape"])) if what["shape"] else "of different sizes"
            known = [
                *(["labelled"] if what["labelled"] else []),
                *([f"{len(what['labels'])} labels each"] if what["labels"] else []),
                *([f"masks of {len(what['masks'])} classes"] if what["masks"] else []),
            ]
            show(f"  {split}: {what['samples']:,}, {shape}, {', '.join(known) or 'no labels'}")
        if contents["declared"]:
            show(f"  {contents['declared']}")
    show(f"{files['files']:,} file(s), {files['bytes']:,} bytes; SHA-256 of the hash list: {files['digest']}")
