"""`hpcule scale METHOD --data DATA --workers W --out DIR`: measured strong and weak scaling of a craft.

Also `hpcule trial FOLDER`, one measured run in processes of its own, which `scale` and `plan` start.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from hpcule.cli.options import Verbs, add_data, add_json, add_out, add_preset, add_settings, configured, positive

if TYPE_CHECKING:
    from hpcule.config.run import WorldConfig
    from hpcule.world.group import World


def add_to(verbs: Verbs) -> None:
    """Declare the verb, and `trial`, which has no help text and so stays out of the list of verbs."""
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
    trial = verbs.add_parser("trial", description="One measured run, as `plan` and `scale` start it.")
    trial.add_argument("folder", type=Path, metavar="FOLDER", help="holds trial.json, which says what is run")
    trial.add_argument("--workers", type=positive, metavar="N", help="start N local processes (default: 1)")
    trial.set_defaults(run=run_trial)


def run(options: argparse.Namespace) -> None:
    """Measure, print, report."""
    from hpcule.cli.opened import say, show
    from hpcule.data.left_out import left_out_notice
    from hpcule.planning.scaling import measure
    from hpcule.planning.trial import check_alone
    from hpcule.report.scaling import print_scaling, write_scaling_report
    from hpcule.store.files import require_own_results

    check_alone()
    require_own_results(options.out)
    config, source = configured(options)
    say(left_out_notice(source))
    results = measure(config, source, options.workers, options.runs, options.out, _say)
    write_scaling_report(results, options.out / "report.html")
    if options.json:
        print(json.dumps(results))
    else:
        print_scaling(results)
        show(f"Report: {options.out / 'report.html'}")


def run_trial(options: argparse.Namespace) -> None:
    """Do what FOLDER/trial.json says."""
    from hpcule.planning.trial import from_tree, perform
    from hpcule.planning.victim_trial import perform_victim, victim_from_tree
    from hpcule.store.files import read_json

    tree = read_json(options.folder / "trial.json")
    if tree["kind"] == "victim":
        victim = victim_from_tree(tree)
        _start(options, lambda world: perform_victim(victim, options.folder, world), victim.world)
    else:
        trial = from_tree(tree)
        deterministic = trial.config.deterministic
        _start(options, lambda world: perform(trial, options.folder, world), trial.config.world, deterministic)


def _start(
    options: argparse.Namespace, work: Callable[[World], None], config: WorldConfig, deterministic: bool = False
) -> None:
    from hpcule.cli.workers import on_all_ranks

    on_all_ranks(work, given=options.given, workers=options.workers, config=config, deterministic=deterministic)


def _say(what: str) -> None:
    print(f"hpcule: {what}", file=sys.stderr, flush=True)
