"""`hpcule study PART`: a grid of crafts and victims, with controls in every cell."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hpcule.cli.options import Verbs, add_figures, add_json, add_refresh_code, check_figures, positive

if TYPE_CHECKING:
    from hpcule.jobs.limits import Limits
    from hpcule.jobs.site import SiteConfig
    from hpcule.jobs.submit import CommandBatch, Submission
    from hpcule.report.canvas import FigureFormat
    from hpcule.study.config import StudyConfig
    from hpcule.study.folder import StudyFolder
    from hpcule.study.grid import StudyGrid
    from hpcule.world.group import World

WATCH_SECONDS = 15
"""Time between two questions to Slurm, which asks users not to ask all the time."""


def add_to(verbs: Verbs) -> None:
    """Declare the verb and its parts."""
    parser = verbs.add_parser("study", help="run a grid of crafts and victims, and say what its factors do")
    parts = parser.add_subparsers(metavar="PART", required=True)
    run_part = parts.add_parser("run", help="do everything that is not done yet, here")
    _add_file(run_part)
    run_part.add_argument("--workers", type=positive, metavar="N", help="start N local processes (default: 1)")
    run_part.set_defaults(run=run)
    submit_part = parts.add_parser("submit", help="hand everything that is not done yet to a batch system")
    _add_file(submit_part)
    submit_part.add_argument("--site", default="local", metavar="SITE", help="a name, or a YAML file (default: local)")
    submit_part.add_argument("--dry-run", action="store_true", help="print the scripts, submit nothing")
    add_refresh_code(submit_part)
    submit_part.add_argument(
        "--calibration",
        type=Path,
        metavar="FILE",
        help="of `hpcule plan FILE --site SITE`: time limits where the site has none (default: 60 minutes)",
    )
    submit_part.set_defaults(run=submit_items)
    for name, function, what in (
        ("status", status, "show how far each cell is"),
        ("cancel", cancel_jobs, "take the jobs of `submit` out of the queue"),
        ("clean", clean_up, "remove checkpoints, logs and code copies of what is finished"),
        ("collect", collect, "write cells.csv and cells.parquet, a row a cell"),
        ("report", report_study, "write report.html"),
    ):
        part = parts.add_parser(name, help=what)
        part.add_argument("folder", type=Path, metavar="DIR")
        if name == "status":
            part.add_argument("--watch", action="store_true", help="show it again until nothing is queued or running")
            add_json(part)
        if name == "report":
            add_figures(part)
        part.set_defaults(run=function)
    item = parts.add_parser("item", help="do one craft, or victims: what a job of `submit` runs")
    item.add_argument("folder", type=Path, metavar="DIR")
    item.add_argument("keys", metavar="KEY", nargs="+")
    item.set_defaults(run=do_items)


def _add_file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="YAML file of a study")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the study, kept private")


def run(options: argparse.Namespace) -> None:
    """Run all items here, then collect and report."""
    run_here(_read(options.file), options, lambda folder: _write(folder.path))


def run_here(config: StudyConfig, options: argparse.Namespace, finish: Callable[[StudyFolder], None]) -> None:
    """Do everything of a study that is not done yet, on the ranks and in the folder that the options name.

    Args:
        config: the study.
        options: with `out`, `workers` and `given`.
        finish: called on one rank at the end.
    """
    from hpcule.cli.workers import on_all_ranks, ranks_of_run
    from hpcule.study.begun import begin_study
    from hpcule.study.items import require_ranks, run_all

    ranks = ranks_of_run(options.workers)
    folder, grid, notices = begin_study(config, options.out, lambda victims: require_ranks(victims, ranks))

    def work(world: World) -> None:
        from hpcule.cli.progress import Progress

        with Progress(shown=world.leads) as progress:
            run_all(folder, config, grid, world, progress.update)
        if world.leads:
            finish(folder)

    on_all_ranks(
        work,
        given=options.given,
        workers=options.workers,
        config=config.world,
        deterministic=any(craft.config.deterministic for craft in grid.crafts.values()),
        notices=lambda: notices,
    )


def submit_items(options: argparse.Namespace) -> None:
    """Submit all items that are neither done nor in the queue."""
    from hpcule.cli.opened import say
    from hpcule.cli.submit import planned_site
    from hpcule.jobs.site import load_site
    from hpcule.jobs.study_batches import StudyBatches, check_jobs
    from hpcule.jobs.submit import Submission
    from hpcule.jobs.systems import check_system, scripts_of
    from hpcule.study.begun import begin_study

    site = load_site(options.site)
    if not options.dry_run:
        check_system(site)
    config = _read(options.file)
    folder, grid, notices = begin_study(config, options.out, partial(check_jobs, site), begin=not options.dry_run)
    site = planned_site(site, config, {victim.workers for victim in grid.victims.values()}, options.calibration)
    say(*notices)
    queued, limits = _queue_and_limits(folder, site, dry_run=options.dry_run)
    missing = [key for key in (*grid.crafts, *grid.victims) if folder.result(key) is None and key not in queued]
    submission = Submission(site, folder.path, options.refresh_code)
    plan = StudyBatches(
        grid,
        missing,
        queued,
        path=str(folder.path.resolve()),
        per_job=site.dealt_victims,
        limits=limits,
    )
    if queued:
        say(f"{len(queued)} item(s) are in the queue already and are left out")
    if plan.left_out:
        say(f"{plan.left_out} item(s) are beyond Slurm's limit of jobs: submit again when others have ended")
    if options.dry_run:
        print("\n".join(scripts_of(plan.batches, submission)))
        return
    _submit(folder, plan.batches, submission)


def _submit(folder: StudyFolder, batches: Sequence[CommandBatch], submission: Submission) -> None:
    """Submit the batches of a study, and write down which job does which item."""
    from hpcule.cli.opened import show
    from hpcule.jobs.systems import submit_to_site
    from hpcule.study.submitted import SubmittedJobs

    jobs, code = SubmittedJobs(folder.path), submission.code

    def note(batch: CommandBatch, job: str) -> None:
        jobs.note(
            {
                "job": job,
                "batch": batch.name,
                "stage": batch.stage,
                "tasks": batch.tasks,
                "items": [list(keys) for keys in batch.items],
                "code": str(code),
                "logs": str(submission.logs),
                "time": time.time(),
                "cancelled": False,
                "system": submission.site.system,
            }
        )

    if not batches:
        print("nothing to submit: every item is done or in the queue")
    for line in submit_to_site(batches, submission, note):
        show(line)


def _queue_and_limits(folder: StudyFolder, site: SiteConfig, *, dry_run: bool) -> tuple[dict[str, str], Limits]:
    """Names of the study's jobs that wait or run, by item, and the limits of Slurm; a dry run does without Slurm."""
    from hpcule.cli.opened import say
    from hpcule.config.errors import UsageError
    from hpcule.jobs.limits import Limits
    from hpcule.jobs.systems import limits_of, states_of
    from hpcule.study.submitted import SubmittedJobs, alive

    try:
        jobs = SubmittedJobs(folder.path)
        return alive(jobs.by_item(), states_of(jobs.arrays())), limits_of(site)
    except UsageError as error:
        if not dry_run:
            raise
        say(f"{error}; these scripts are for everything that is not done, and for the usual limits of Slurm")
        return {}, Limits()


def do_items(options: argparse.Namespace) -> None:
    """Do one craft on all ranks that a launcher started, or victims, dealt out to groups of as many as each takes."""
    from hpcule.cli.opened import say
    from hpcule.cli.progress import Progress
    from hpcule.cli.workers import on_all_ranks
    from hpcule.config.errors import UsageError
    from hpcule.study.grid import Craft, StudyVictim, find_item
    from hpcule.study.items import do_craft, do_victims, require_unchanged

    folder, config, grid = _open(options.folder)
    items = [find_item(grid, key) for key in options.keys]
    crafts = [item for item in items if isinstance(item, Craft)]
    victims = [item for item in items if isinstance(item, StudyVictim)]
    if crafts and len(items) > 1:
        raise UsageError("a craft takes all ranks: give one KEY of a craft, or several of victims")
    waiting = {victim.key for victim in victims if victim.crafts and not any(map(folder.craft_result, victim.crafts))}
    skipped = [f"{victim.title}: skipped, its craft is not finished" for victim in victims if victim.key in waiting]
    ready = [victim for victim in victims if victim.key not in waiting]

    def work(world: World) -> None:
        with Progress(shown=world.leads) as progress:
            for craft in crafts:
                do_craft(folder, config, craft, world, progress.update)
            do_victims(folder, config, ready, world, progress.update)

    if any(folder.result(key) is None for key in options.keys if key not in waiting):
        require_unchanged(folder, config, dict.fromkeys(item.data for item in items))
        deterministic = any(craft.config.deterministic for craft in crafts)
        on_all_ranks(
            work,
            given=options.given,
            workers=None,
            config=config.world,
            deterministic=deterministic,
            notices=lambda: skipped,
        )
    else:
        say(*skipped)


def status(options: argparse.Namespace) -> None:
    """Print a line a cell, and the counts."""
    from hpcule.cli.opened import show
    from hpcule.study.status import cell_status, item_statuses

    folder, _, grid = _open(options.folder)
    while True:
        items = item_statuses(folder, grid, _known_queue(folder))
        cells = [cell_status(folder, grid, cell, items) for cell in grid.cells]
        if options.json:
            print(json.dumps([cell.document() for cell in cells]), flush=True)
        else:
            if options.watch and sys.stdout.isatty():
                print("\033[H\033[2J", end="")
            for cell in cells:
                show(cell.line())
            print(f"{len(cells)} cells: {_counts(cell.state for cell in cells)}")
            print(f"{len(items)} crafts and victims: {_counts(item.state for item in items.values())}", flush=True)
        if not options.watch or not {"queued", "running"} & {item.state for item in items.values()}:
            return
        time.sleep(WATCH_SECONDS)


def _counts(states: Iterable[str]) -> str:
    return ", ".join(f"{count} {state}" for state, count in Counter(states).items())


def _known_queue(folder: StudyFolder) -> dict[str, str] | None:
    """States of the jobs in the queue; None, with a line that says why, if jobs were submitted that cannot be seen."""
    from hpcule.cli.opened import say
    from hpcule.config.errors import UsageError
    from hpcule.jobs.systems import states_of
    from hpcule.study.submitted import SubmittedJobs

    try:
        return states_of(SubmittedJobs(folder.path).arrays())
    except UsageError as error:
        say(f"{error}; the states are those of the study's files alone")
        return None


def cancel_jobs(options: argparse.Namespace) -> None:
    """Take the study's jobs out of the queue."""
    from hpcule.jobs.systems import cancel_records, states_of
    from hpcule.study.submitted import SubmittedJobs

    folder, _, _ = _open(options.folder)
    jobs = SubmittedJobs(folder.path)
    waiting = Counter(name.split("_")[0] for name in states_of(jobs.arrays()))
    arrays = [array for array in jobs.arrays() if array["job"] in waiting]
    cancel_records(arrays)
    jobs.mark_cancelled(arrays)
    print(f"cancelled {sum(waiting[array['job']] for array in arrays)} job(s) of {len(arrays)} array(s)")


def clean_up(options: argparse.Namespace) -> None:
    """Remove what can be made again."""
    from hpcule.jobs.scheduler import is_here
    from hpcule.jobs.systems import states_of
    from hpcule.study.clean import clean_folder
    from hpcule.study.submitted import SubmittedJobs

    folder, _, grid = _open(options.folder)
    known = [
        array for array in SubmittedJobs(folder.path).arrays() if is_here() or array.get("system", "slurm") != "slurm"
    ]
    queued = {name.split("_")[0] for name in states_of(known)}
    removed = clean_folder(folder, grid, queued)
    print("removed: " + ", ".join(f"{what} {size / 2**20:.1f} MiB" for what, size in removed.items()))


def collect(options: argparse.Namespace) -> None:
    """Write the table of cells."""
    from hpcule.cli.opened import show
    from hpcule.study.collect import rows, write_rows

    folder, _, grid = _open(options.folder)
    for path in write_rows(rows(folder, grid), folder.path):
        show(str(path))


def report_study(options: argparse.Namespace) -> None:
    """Write the table and the page, and figures if they are asked for."""
    check_figures(options)
    folder, _, _ = _open(options.folder)
    _write(options.folder, options.figures)
    _print_usage(folder)


def _print_usage(folder: StudyFolder) -> None:
    """Print what the study's jobs asked for and what they used."""
    from hpcule.cli.opened import say
    from hpcule.config.errors import UsageError
    from hpcule.jobs.usage import usage, usage_lines
    from hpcule.study.submitted import SubmittedJobs

    arrays = SubmittedJobs(folder.path).arrays()
    stages = {array["job"]: array["stage"] for array in arrays if array.get("system", "slurm") == "slurm"}
    if stages:
        try:
            print("\n".join(usage_lines(usage(stages))))
        except UsageError as error:
            say(f"what the jobs used is not known: {error}")


def _read(file: Path) -> StudyConfig:
    from hpcule.config.tree import build_config, load_yaml
    from hpcule.study.config import StudyConfig

    return build_config(StudyConfig, load_yaml(file))


def _open(path: Path) -> tuple[StudyFolder, StudyConfig, StudyGrid]:
    from hpcule.study.folder import StudyFolder
    from hpcule.study.grid import expand

    folder = StudyFolder(path)
    config = folder.config()
    return folder, config, expand(config, folder.samples())


def _write(path: Path, figures: FigureFormat | None = None) -> None:
    from hpcule.cli.opened import show
    from hpcule.report.study import write_study_report
    from hpcule.study.collect import rows, write_rows

    folder, config, grid = _open(path)
    found = rows(folder, grid)
    write_rows(found, path)
    sentences = write_study_report(config, grid, found, folder.result, path / "report.html")
    print("\n".join(sentences))
    show(f"Report: {path / 'report.html'}")
    if figures:
        from hpcule.report.canvas import write_figures
        from hpcule.report.figures import figures_by_data
        from hpcule.report.study import factor_names
        from hpcule.report.study_panels import measured_noise_scales

        drawn = figures_by_data(
            found, factor_names(config), lambda group: measured_noise_scales(group, grid, folder.result)
        )
        write_figures(drawn, path / "figures", figures)
