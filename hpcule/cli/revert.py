"""`hpcule revert STORE --data COPY --out DIR`: the owner's way back from a published copy."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from hpcule.cli.options import Verbs, add_access, add_json
from hpcule.config.errors import IN_STORE, setting_in

if TYPE_CHECKING:
    from hpcule.publish.revert import RevertSummary

_SHOWN = 5


def add_to(verbs: Verbs) -> None:
    """Declare the verb."""
    parser = verbs.add_parser("revert", help="take the protection off a published copy, for the owner of its store")
    parser.add_argument("store", type=Path, metavar="STORE")
    add_access(parser)
    parser.add_argument("--data", type=Path, required=True, metavar="COPY", help="what `hpcule export` wrote")
    parser.add_argument("--originals", metavar="DATA", help="compare the result with the originals")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="must be absent or empty; kept private")
    add_json(parser)
    parser.set_defaults(run=run)


@setting_in(IN_STORE)
def run(options: argparse.Namespace) -> None:
    """Remove the perturbation of STORE from a published copy."""
    from hpcule.cli.opened import opened_vault, say, single_file
    from hpcule.data.find import data_path
    from hpcule.data.left_out import left_out_notice
    from hpcule.data.opening import Opening
    from hpcule.publish.hashes import file_hashes
    from hpcule.publish.records import find_export, last_export
    from hpcule.publish.revert import open_copy, revert
    from hpcule.store.manifest import read_manifest
    from hpcule.store.staged import left_behind, require_apart

    say(left_behind(options.out))
    vault = opened_vault(options)
    originals_path = data_path(options.originals) if options.originals else None
    places = {"the store": options.store, "the copy": options.data, "the originals": originals_path}
    require_apart(options.out, places)
    manifest = read_manifest(vault)
    data = single_file(options.data)
    splits = Opening().splits(str(data))
    split = manifest.source.split if splits != ("all",) else "all"
    hashes = file_hashes(options.data)
    export = find_export(options.store, hashes)
    altered = export.altered(hashes) if export else None
    export = export or last_export(options.store)
    copies = {name: open_copy(manifest, data, name, export) for name in splits}
    originals = manifest.opening.source(options.originals) if options.originals else None
    if originals is not None:
        say(left_out_notice(originals))
    protected = copies.pop(split)
    summary = revert(vault, protected, options.out, other_splits=copies, originals=originals, export=export)
    if options.json:
        print(json.dumps({**vars(summary), "path": str(summary.path), "altered": altered}))
    else:
        print_reverted(summary, altered)


def print_reverted(summary: RevertSummary, altered: list[str] | None) -> None:
    """Print for people."""
    from hpcule.cli.opened import show

    show(f"Took the perturbation off {summary.reverted:,} samples, into {summary.path}. Keep this folder private.")
    if summary.missing:
        show(f"The copy lacks {summary.missing:,} of the store's samples.")
    if summary.foreign:
        show(f"{summary.foreign:,} samples cannot have been published from this store, or were changed since.")
    if altered:
        named = ", ".join([*altered[:_SHOWN], *(["..."] if len(altered) > _SHOWN else [])])
        show(f"{len(altered):,} file(s) are not as the export wrote them: {named}")
    elif altered is not None:
        show("All files are as the export wrote them.")
    if summary.uncertain:
        show(
            f"{summary.uncertain:,} values of {summary.uncertain_samples:,} samples are at an end of the grid, where "
            "the sum may have been cut off: they stay as published."
        )
    answer = {True: "yes", False: "no", None: "unknown; --originals DATA compares with them"}[summary.identical]
    show(f"Identical to the originals: {answer}.")
