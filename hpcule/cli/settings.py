"""`hpcule settings METHOD`: the settings of a method, their values in each preset, and what is valid."""

from __future__ import annotations

import argparse
import json

from hpcule.cli.options import Verbs, add_json


def add_to(verbs: Verbs) -> None:
    """Declare the verb."""
    parser = verbs.add_parser("settings", help="list the settings of a method, with values and ranges")
    parser.add_argument("method", metavar="METHOD", help="em, pil, uc, ...: `hpcule methods` lists them")
    parser.add_argument("--preset", metavar="NAME", help="values of paper, small or smoke alone (default: all three)")
    how = parser.add_mutually_exclusive_group()
    add_json(how)
    how.add_argument("--markdown", action="store_true", help="print the table of the method's page")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Print the table."""
    from hpcule.config.errors import UsageError
    from hpcule.config.tree import unknown
    from hpcule.craft.described import PRESETS, settings_of
    from hpcule.report.methods import setting_text, settings_table

    presets = [options.preset] if options.preset else list(PRESETS)
    if options.preset and options.preset not in PRESETS:
        raise UsageError(unknown("preset", options.preset, PRESETS))
    if options.markdown:
        if options.preset:
            raise UsageError("--preset with --markdown: the table of a page has all presets; leave one out")
        print(settings_table(options.method), end="")
        return
    rows = settings_of(options.method)
    if options.json:
        documents = [{**row.document(), "values": {preset: row.values[preset] for preset in presets}} for row in rows]
        print(json.dumps(documents, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(show_lines=True)
    for heading in ("setting", "type", *presets, "valid", "what"):
        table.add_column(heading, no_wrap=heading == "setting")
    for row in rows:
        values = [setting_text(row.values[preset]) for preset in presets]
        table.add_row(row.name, row.type, *values, row.valid, row.description)
    Console().print(table)
