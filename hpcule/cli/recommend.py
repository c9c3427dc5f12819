"""`hpcule recommend --data DATA --budget MINUTES`: which method leaves least in its worst case, on a subset."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from hpcule.cli.options import Verbs, add_data, add_out, add_run, add_test, tell

if TYPE_CHECKING:
    from hpcule.data.source import Source
    from hpcule.evaluation.candidates import RecommendConfig
    from hpcule.world.group import World


COMMON_SIZE = 224
"""Height and width in pixels at which images of many sizes are tried: what most pretrained networks read."""


def add_to(verbs: Verbs) -> None:
    """Declare the verb."""
    parser = verbs.add_parser("recommend", help="try methods on some samples, and name the best in its worst case")
    add_data(parser)
    add_test(parser)
    parser.add_argument("--budget", type=float, required=True, metavar="MINUTES", help="time for crafts and victims")
    add_out(parser, "hpcule-runs/recommend", "results.json, report.html, and the stores that were tried go here")
    add_run(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Hold the tournament."""
    from hpcule.cli.submit import run_or_submit
    from hpcule.config.errors import UsageError
    from hpcule.config.tree import build_config, load_yaml, with_overrides
    from hpcule.data.check import check_same_task
    from hpcule.data.left_out import left_out_notice
    from hpcule.evaluation.candidates import RecommendConfig

    if options.budget <= 0:
        raise UsageError(f"--budget {options.budget:g}: minutes, above 0")
    file = load_yaml(options.config) if options.config else {}
    config = build_config(RecommendConfig, with_overrides(file, options.overrides))
    config, source, resized = _opened(config, options.data)
    test = config.test(options.data, options.test)
    check_same_task(source, test)

    def work(world: World) -> None:
        _recommend(options, config, source, test, world)

    left_out = config.evaluation(source).left_out
    run_or_submit(options, "recommend", work, config.world, notices=[resized, left_out_notice(source, test), *left_out])


def _opened(config: RecommendConfig, data: str) -> tuple[RecommendConfig, Source, str | None]:
    """The samples, with a size in the configuration if they are of many and it has none, and what to say about that."""
    from dataclasses import replace

    from hpcule.config.errors import OpeningError

    try:
        return config, config.source(data), None
    except OpeningError as error:
        if error.name != "image_size":
            raise
        resized = replace(config, image_size=COMMON_SIZE)
        said = f"{error.seen}: tried at {COMMON_SIZE} x {COMMON_SIZE} pixels; --set image_size=N changes that"
    return resized, resized.source(data), said


def _recommend(
    options: argparse.Namespace, config: RecommendConfig, source: Source, test: Source, world: World
) -> None:
    from hpcule.cli.compare import write_store_reports
    from hpcule.cli.opened import leader_says, say
    from hpcule.cli.progress import Progress
    from hpcule.craft.table import usable
    from hpcule.evaluation.bench import Setup
    from hpcule.evaluation.recommend import recommend
    from hpcule.evaluation.recommendation import advice
    from hpcule.report.comparison import print_recommendation, write_recommendation
    from hpcule.report.plan_table import duration

    say(*(usable()[1] if world.leads else ()))
    with Progress(shown=world.leads) as progress:

        def plan(victims: int, seconds: float) -> None:
            if world.leads:
                say(
                    f"up to {victims} victims, about {duration(seconds)} without crafting; it ends after "
                    f"{options.budget:g} minutes with what was measured until then"
                )

        setup = Setup(
            source=source,
            test=test,
            out=options.out,
            world=world,
            report=progress.update,
            plan=plan,
            tell=leader_says(world),
        )
        results, evaluation, each = recommend(config, options.budget, options.data, setup)
    if not world.leads:
        return
    advised = advice(results, {name: evaluated for name, (evaluated, _) in each.items()}, options.data)
    write_store_reports(options.out, evaluation, results, each)
    write_recommendation(results, options.out / "report.html", advised)
    tell(options, results, lambda: print_recommendation(results, advised))
