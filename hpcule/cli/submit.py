"""`--submit SITE`: the same command as a job of a batch system."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hpcule.config.run import WorldConfig
    from hpcule.jobs.site import SiteConfig, Stage
    from hpcule.study.config import StudyConfig
    from hpcule.world.group import World

JOBS = Path("hpcule-runs/jobs")


def ranks(options: argparse.Namespace) -> int:
    """How many ranks the site's job has.

    Raises:
        UsageError: there is no such site, or --workers contradicts it.
    """
    from hpcule.config.errors import UsageError
    from hpcule.jobs.site import load_site

    site = load_site(options.submit)
    count = site.resources("craft").ranks
    if options.workers not in (None, count):
        raise UsageError(f"--workers {options.workers}, but {options.submit} starts {count} ranks: leave --workers out")
    return count


def run_or_submit(
    options: argparse.Namespace,
    name: str,
    work: Callable[[World], None],
    config: WorldConfig,
    stores: Sequence[Path] = (),
    notices: Sequence[str | None] = (),
) -> None:
    """Do a verb's work on all ranks here, or, with --submit, let a batch system start the same command.

    Args:
        options: of the verb.
        name: of the verb.
        work: gets the world.
        config: threads, device, time-outs.
        stores: that the verb reads.
        notices: what rank 0 has to say first.

    Raises:
        UsageError: --out holds files of others that would be replaced.
    """
    from hpcule.cli.opened import privacy_notice
    from hpcule.cli.workers import on_all_ranks
    from hpcule.config.errors import IN_SET, IN_STORE, setting_in
    from hpcule.store.files import require_own_results

    require_own_results(options.out)
    privacy = privacy_notice(stores, strict=bool(stores) and options.strict)
    if options.submit:
        ranks(options)
        submit(options, name)
    else:

        def placed(world: World) -> None:
            with setting_in(IN_STORE if stores else IN_SET):
                work(world)

        on_all_ranks(
            placed, given=options.given, workers=options.workers, config=config, notices=lambda: [privacy, *notices]
        )


def submit(options: argparse.Namespace, name: str, *more: str) -> None:
    """Submit the command that was given, with `more` arguments, and say what became of it."""
    from hpcule.cli.opened import show
    from hpcule.jobs.site import load_site
    from hpcule.jobs.submit import CommandBatch, Submission
    from hpcule.jobs.systems import check_system, scripts_of, submit_to_site

    given = [argument for argument in options.given if argument != "--dry-run"]
    arguments = _without(given, "--submit") + [argument for argument in more if argument not in given]
    site = load_site(options.submit)
    batches = [CommandBatch(name, "craft", [arguments])]
    submission = Submission(site, JOBS / f"{time.strftime('%Y%m%d-%H%M%S')}-{name}")
    if options.dry_run:
        print("\n".join(scripts_of(batches, submission)))
        return
    check_system(site)
    for line in submit_to_site(batches, submission, lambda batch, job: None):
        show(line)
    show(f"Logs: {submission.logs}")


def planned_site(
    site: SiteConfig, config: StudyConfig, workers: Collection[int], calibration: Path | None
) -> SiteConfig:
    """The site with time limits for a study where it has none, by what `hpcule plan --calibration` has measured.

    Args:
        site: without them.
        config: of the study.
        workers: numbers of ranks that train one victim.
        calibration: file of the measurements; None: there are none.

    Raises:
        UsageError: the file is of another study or machine.
    """
    from hpcule.config.errors import UsageError
    from hpcule.jobs.scheduler import longest_minutes
    from hpcule.planning.machine import Machine
    from hpcule.planning.measurements import Measurements
    from hpcule.planning.plan import plan_study

    if calibration is None:
        return site
    wanted = site.resources("craft")
    machine = Machine(name="site", nodes=wanted.nodes, workers_per_node=wanted.tasks_per_node)
    plan = plan_study(config, machine, Measurements.read(calibration, lambda what: None))
    in_a_row = max(
        math.ceil(site.dealt_victims(ranks) * ranks / site.resources("victim", ranks).ranks) for ranks in workers
    )
    victim_seconds = plan.start_seconds + in_a_row * plan.longest_victim_seconds
    predicted: dict[Stage, float] = {"craft": plan.longest_craft_seconds, "victim": victim_seconds}
    try:
        longest = longest_minutes(site)
    except UsageError:  # a dry run away from the cluster
        longest = {}
    return site.with_minutes(predicted, longest)


def _without(given: list[str], option: str) -> list[str]:
    """The arguments without an option that has a value, and without --workers, which the launcher decides."""
    kept, skip = [], False
    for argument in given:
        if skip:
            skip = False
        elif argument in (option, "--workers"):
            skip = True
        elif not argument.startswith((f"{option}=", "--workers=")):
            kept.append(argument)
    return kept
