"""`hpcule scale METHOD --data DATA --workers W --out DIR`: measured strong and weak scaling of a craft."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from hpcule.cli.options import add_data, add_json, add_out, positive


def add_to(verbs: Any) -> None:
    """Declare the verb."""
    parser = verbs.add_parser("scale", help="measure a craft with 1..W workers: time, efficiency, where the time goes")
    parser.add_argument("method", metavar="METHOD", help="em, pil or uc")
    add_data(parser)
    parser.add_argument("--workers", type=positive, required=True, metavar="W", help="local processes, at most")
    add_out(parser, "hpcule-runs/scale", "results.json and report.html go here")
    parser.add_argument("--preset", metavar="NAME", help="paper (default), small or smoke")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="NAME=VALUE")
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML file with settings")
    parser.add_argument("--runs", type=positive, default=1, metavar="K", help="of every point (default: 1)")
    add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Measure, print, report."""
    from hpcule.config.tree import load_yaml
    from hpcule.craft.methods import configure
    from hpcule.data.open import open_source
    from hpcule.study.scaling import measure
    from hpcule.study.scaling_report import print_scaling, write_scaling_report
    from hpcule.study.trial import check_alone

    check_alone()
    file = load_yaml(options.config) if options.config else {}
    config = configure(options.method, options.data, preset=options.preset, file=file, overrides=options.overrides)
    source = open_source(config.data, image_size=config.image_size, skip_unreadable=config.skip_unreadable)
    results = measure(config, source, options.workers, options.runs, options.out, _say)
    write_scaling_report(results, options.out / "report.html")
    if options.json:
        print(json.dumps(results))
    else:
        print_scaling(results)
        print(f"Report: {options.out / 'report.html'}")


def _say(what: str) -> None:
    print(f"hpcule: {what}", file=sys.stderr, flush=True)
