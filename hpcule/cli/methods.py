"""`hpcule methods`: the table of methods."""

from __future__ import annotations

import argparse
import json

from hpcule.cli.options import Verbs, add_json


def add_to(verbs: Verbs) -> None:
    """Declare the verb."""
    parser = verbs.add_parser("methods", help="list the methods, what they need and what they cost")
    how = parser.add_mutually_exclusive_group()
    add_json(how)
    how.add_argument("--markdown", action="store_true", help="print the table of docs/methods/README.md")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Print the table."""
    from hpcule.cli.opened import say
    from hpcule.craft.survey import describe

    if options.markdown:
        from hpcule.report.methods import methods_table

        print(methods_table(), end="")
        return
    rows, broken = describe()
    for line in broken:
        say(line)
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    from hpcule.report.methods import print_methods

    print_methods(rows)
