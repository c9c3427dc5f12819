"""`hpcule evaluate STORE --data DATA`: the protection report."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from hpcule.cli.options import Verbs, add_access, add_data, add_figures, add_out, add_run, add_test, check_figures, tell

if TYPE_CHECKING:
    from hpcule.data.source import Source
    from hpcule.evaluation.suites import EvaluateConfig
    from hpcule.world.group import World

SUITE_NAMES = ("quick", "standard", "clinic", "sizes", "full")
SUITES_HELP = (
    "quick: 6 recipes, one seed; standard: 11 recipes, 3 seeds; clinic: 13 recipes of trainers of medical images, "
    "3 seeds; sizes: 2 recipes, one on a trained encoder, each with images read at up to 4 sizes, 3 seeds; full: 52 "
    "recipes, 5 seeds, field's schedule; clinic and full have 2 more for images of more than 8 bits"
)


def add_to(verbs: Verbs) -> None:
    """Declare the verb."""
    parser = verbs.add_parser(
        "evaluate", help="train victims on the protected copy and on clean and random-noise controls, and report"
    )
    parser.add_argument("store", type=Path, metavar="STORE")
    add_access(parser)
    add_data(parser)
    add_test(parser)
    parser.add_argument("--suite", choices=SUITE_NAMES, default="standard", help=SUITES_HELP)
    parser.add_argument(
        "--tasks",
        type=lambda text: text.split(","),
        default=[],
        metavar="TASK,TASK",
        help="train every recipe for each of these tasks: label, labels, segmentation, rotation, colour, edges "
        "(default: victim.task)",
    )
    parser.add_argument(
        "--with",
        type=Path,
        action="append",
        default=[],
        dest="measures",
        metavar="DIR",
        help="show what hpcule certify, distance, recover or probe strip found of this store, too; may be repeated",
    )
    add_out(parser, "hpcule-runs/evaluate", "results.json and report.html go here")
    add_figures(parser)
    add_run(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Train the victims on DATA as STORE protects it and on the controls, and report."""
    from hpcule.cli.opened import leader_says, say, store_and_data
    from hpcule.cli.progress import Progress
    from hpcule.cli.submit import run_or_submit
    from hpcule.data.left_out import left_out_notice
    from hpcule.data.schedule import small_notice
    from hpcule.evaluation.bench import Bench
    from hpcule.evaluation.evaluate import evaluate
    from hpcule.evaluation.suites import for_tasks
    from hpcule.report.estimates import planned, remaining
    from hpcule.report.probes import read_probes
    from hpcule.report.protection import write_evaluation
    from hpcule.report.table import print_results

    check_figures(options)
    store, source, test = store_and_data(options)
    config, measures = evaluate_config(options, source), read_probes(options.measures, store)
    if options.tasks:
        config = for_tasks(config, options.tasks)

    def work(world: World) -> None:
        def plan(victims: int, seconds: float) -> None:
            if world.leads:
                say(planned(config, victims, seconds))

        with Progress(shown=world.leads) as progress:

            def left(done: int, total: int, seconds: float) -> None:
                progress.left = remaining(done, total, seconds, world.size)

            bench = Bench(
                store=store,
                source=source,
                test=test,
                out=options.out,
                world=world,
                report=progress.update,
                plan=plan,
                left=left,
                tell=leader_says(world),
            )
            results, pictures = evaluate(config, bench)
        if not world.leads:
            return
        write_evaluation(options.out, config, results, pictures, measures)
        tell(options, results, lambda: print_results(results))
        if options.figures:
            from hpcule.report.canvas import write_figures
            from hpcule.report.figures import evaluation_figures

            write_figures(evaluation_figures(results), options.out / "figures", options.figures)

    small = small_notice("victim.batch", config.victim.batch, len(source))
    notices = [left_out_notice(source, test), small, *config.left_out]
    run_or_submit(options, "evaluate", work, config.world, [options.store], notices)


def evaluate_config(options: argparse.Namespace, source: Source) -> EvaluateConfig:
    """The configuration of --suite, --config and --set for these samples."""
    from hpcule.config.tree import load_yaml
    from hpcule.evaluation.suites import suite_config

    file = load_yaml(options.config) if options.config else {}
    return suite_config(options.suite, source, file, options.overrides)
