"""`hpcule verify STORE`: checksums, exactly-once, budget."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from hpcule.cli.options import Verbs, add_json, add_key
from hpcule.config.errors import IN_STORE, StoreError, setting_in


def add_to(verbs: Verbs) -> None:
    """Declare the verb."""
    parser = verbs.add_parser(
        "verify",
        help="check a store: shards byte by byte, ids, budget, settings, exports",
    )
    parser.add_argument("store", type=Path, metavar="STORE")
    parser.add_argument("--data", metavar="DATA", help="also check that the store was made for these samples")
    add_key(parser)
    add_json(parser)
    parser.set_defaults(run=run)


@setting_in(IN_STORE)
def run(options: argparse.Namespace) -> None:
    """Verify; raises StoreError when anything is wrong."""
    from dataclasses import asdict

    from hpcule.cli.opened import key_of, say, show
    from hpcule.data.left_out import left_out_notice
    from hpcule.store.manifest import read_manifest
    from hpcule.store.vault import Vault
    from hpcule.store.verify import verify

    vault = Vault(options.store, key_of(options))
    manifest = read_manifest(vault)
    source = None
    if options.data:
        source = manifest.opening.source(options.data)
        say(left_out_notice(source))
    problems = verify(vault, source)
    if options.json:
        print(json.dumps({"whole": not problems, "problems": [asdict(problem) for problem in problems]}))
    elif not problems:
        show(f"{options.store} is whole: {manifest.n:,} samples in {len(manifest.shards)} shards, budget kept.")
    else:
        for problem in problems:
            print(problem)
    if problems:
        raise StoreError(f"{options.store}: {len(problems)} problem(s) found")
