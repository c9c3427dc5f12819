"""`hpcule compare STORE... --data DATA`: several protections of the same samples, side by side."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hpcule.cli.evaluate import SUITES, SUITES_HELP, configured
from hpcule.cli.options import add_access, add_data, add_figures, add_out, add_run, add_test, check_figures, tell


def add_to(verbs: Any) -> None:
    """Declare the verb."""
    parser = verbs.add_parser("compare", help="evaluate several stores of the same samples, with the same controls")
    parser.add_argument("stores", type=Path, metavar="STORE", nargs="+")
    add_access(parser)
    add_data(parser)
    add_test(parser)
    parser.add_argument("--suite", choices=SUITES, default="quick", help=SUITES_HELP)
    add_out(parser, "hpcule-runs/compare", "results.json, report.html and the reports of the stores go here")
    add_figures(parser)
    add_run(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Compare."""
    from hpcule.cli.opened import stores_and_data
    from hpcule.cli.submit import run_or_submit
    from hpcule.config.errors import UsageError

    check_figures(options)
    stores, source, test = stores_and_data(options.stores, options)
    named = {store.path.resolve().name: store for store in stores}
    if len(named) < len(stores):
        raise UsageError("two of the stores have the same folder name, which is what they are called in the comparison")
    config = configured(options, source)

    def work(world: Any) -> None:
        report(options, config, named, source, test, world)

    run_or_submit(options, "compare", work, config.world, options.stores)


def report(options: argparse.Namespace, config: Any, stores: Any, source: Any, test: Any, world: Any) -> None:
    """Train the victims; rank 0 prints the table and writes the comparison, and the report of every store."""
    from hpcule.cli.progress import Progress
    from hpcule.evaluation.comparison import compare
    from hpcule.report.comparison import print_comparison

    with Progress(shown=world.leads) as progress:
        results, each = compare(config, stores, source, test, options.out / "cells", world, progress.update)
    if not world.leads:
        return
    write(options.out, config, results, each)
    if options.figures:
        from hpcule.report.canvas import write_figures
        from hpcule.report.figures import comparison_figures

        write_figures(comparison_figures(results), options.out / "figures", options.figures)
    tell(options, results, lambda: print_comparison(results))


def write(out: Path, config: Any, results: Any, each: Any, notes: Sequence[str] = ()) -> None:
    """Write results.json, report.html with the notes at its top, and the report of every store."""
    from hpcule.report.comparison import write_comparison
    from hpcule.report.protection import write_evaluation
    from hpcule.store.files import private_directory, to_json, write_atomically

    for folder in (out, out / "reports"):
        private_directory(folder)
    for name, (evaluated, pictures) in each.items():
        write_evaluation(out / "reports" / name, config, evaluated, pictures)
    write_atomically(out / "results.json", to_json(dict(results)))
    write_comparison(results, out / "report.html", notes)
