"""`hpcule compare STORE... --data DATA`: several protections of the same samples, side by side."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from hpcule.cli.evaluate import SUITE_NAMES, SUITES_HELP, evaluate_config
from hpcule.cli.options import Verbs, add_access, add_data, add_figures, add_out, add_run, add_test, check_figures, tell

if TYPE_CHECKING:
    from hpcule.evaluation.comparison import ComparisonDocument, StoresDocument
    from hpcule.evaluation.pictures import Pictures
    from hpcule.evaluation.results import ProtectionDocument
    from hpcule.evaluation.suites import EvaluateConfig
    from hpcule.world.group import World


def add_to(verbs: Verbs) -> None:
    """Declare the verb."""
    parser = verbs.add_parser("compare", help="evaluate several stores of the same samples, with the same controls")
    parser.add_argument("stores", type=Path, metavar="STORE", nargs="+")
    add_access(parser)
    add_data(parser)
    add_test(parser)
    parser.add_argument("--suite", choices=SUITE_NAMES, default="quick", help=SUITES_HELP)
    add_out(parser, "hpcule-runs/compare", "results.json, report.html and the reports of the stores go here")
    add_figures(parser)
    add_run(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Evaluate the stores with the same controls, and compare them."""
    from hpcule.cli.opened import leader_says, say, stores_and_data
    from hpcule.cli.progress import Progress
    from hpcule.cli.submit import run_or_submit
    from hpcule.config.errors import UsageError, one_line
    from hpcule.data.left_out import left_out_notice
    from hpcule.evaluation.bench import Setup
    from hpcule.evaluation.comparison import compare_stores
    from hpcule.report.estimates import planned, remaining

    check_figures(options)
    stores, source, test = stores_and_data(options.stores, options)
    named = {one_line(store.path.resolve().name): store for store in stores}
    if len(named) < len(stores):
        raise UsageError("two of the stores have the same folder name, which is what they are called in the comparison")
    config = evaluate_config(options, source)

    def work(world: World) -> None:
        def plan(victims: int, seconds: float) -> None:
            if world.leads:
                say(planned(config, victims, seconds))

        with Progress(shown=world.leads) as progress:

            def left(done: int, total: int, seconds: float) -> None:
                progress.left = remaining(done, total, seconds, world.size)

            setup = Setup(
                source=source,
                test=test,
                out=options.out,
                world=world,
                report=progress.update,
                plan=plan,
                left=left,
                tell=leader_says(world),
            )
            results, each = compare_stores(config, named, setup)
        if world.leads:
            _report(options, config, results, each)

    notices = [left_out_notice(source, test), *config.left_out]
    run_or_submit(options, "compare", work, config.world, options.stores, notices)


def _report(
    options: argparse.Namespace,
    config: EvaluateConfig,
    results: ComparisonDocument,
    each: Mapping[str, tuple[ProtectionDocument, Pictures]],
) -> None:
    """Write the comparison, its figures and the report of every store, and print the table."""
    from hpcule.report.comparison import print_comparison, write_comparison

    write_store_reports(options.out, config, results, each)
    write_comparison(results, options.out / "report.html", config.left_out)
    if options.figures:
        from hpcule.report.canvas import write_figures
        from hpcule.report.figures import comparison_figures

        write_figures(comparison_figures(results), options.out / "figures", options.figures)
    tell(options, results, lambda: print_comparison(results))


def write_store_reports(
    out: Path,
    config: EvaluateConfig,
    results: StoresDocument,
    each: Mapping[str, tuple[ProtectionDocument, Pictures]],
) -> None:
    """Write results.json, and the report of every store."""
    from hpcule.report.protection import write_evaluation
    from hpcule.store.files import private_directory, to_json, write_atomically

    for folder in (out, out / "reports"):
        private_directory(folder)
    for name, (evaluated, pictures) in each.items():
        write_evaluation(out / "reports" / name, config, evaluated, pictures)
    write_atomically(out / "results.json", to_json(results))
