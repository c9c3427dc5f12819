"""`hpcule scale METHOD --data DATA --workers W --out DIR`: measured strong and weak scaling of a craft."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from hpcule.cli.options import add_data, add_json, add_out, add_preset, add_settings, configured, positive


def add_to(verbs: Any) -> None:
    """Declare the verb."""
    parser = verbs.add_parser("scale", help="measure a craft with 1..W workers: time, efficiency, where the time goes")
    parser.add_argument("method", metavar="METHOD", help="any of `hpcule methods`")
    add_data(parser)
    parser.add_argument("--workers", type=positive, required=True, metavar="W", help="local processes, at most")
    add_out(parser, "hpcule-runs/scale", "results.json and report.html go here")
    add_preset(parser)
    add_settings(parser)
    parser.add_argument("--runs", type=positive, default=1, metavar="K", help="of every point (default: 1)")
    add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Measure, print, report."""
    from hpcule.planning.scaling import measure
    from hpcule.planning.trial import check_alone
    from hpcule.report.scaling import print_scaling, write_scaling_report

    check_alone()
    config, source = configured(options)
    results = measure(config, source, options.workers, options.runs, options.out, _say)
    write_scaling_report(results, options.out / "report.html")
    if options.json:
        print(json.dumps(results))
    else:
        print_scaling(results)
        print(f"Report: {options.out / 'report.html'}")


def _say(what: str) -> None:
    print(f"hpcule: {what}", file=sys.stderr, flush=True)
