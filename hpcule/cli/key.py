"""`hpcule key KEY`: make the key of encrypted stores."""

from __future__ import annotations

import argparse

from hpcule.cli.options import Verbs


def add_to(verbs: Verbs) -> None:
    """Declare the verb."""
    parser = verbs.add_parser("key", help="make a key, with which `craft --key` encrypts a store")
    parser.add_argument("key", metavar="KEY", help="a file that is not there yet, or keyring:NAME")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Make a key."""
    from hpcule.cli.opened import show
    from hpcule.store.keys import make_key

    make_key(options.key)
    show(f"Made {options.key}. Without it no store that it encrypts can be read again: keep a copy in a safe place.")
