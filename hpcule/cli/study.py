"""`hpcule study run|submit|status|collect|report`: a grid of crafts and victims, with controls in every cell."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from hpcule.cli.options import Verbs, add_figures, add_json, check_figures, positive

if TYPE_CHECKING:
    from hpcule.report.canvas import FigureFormat
    from hpcule.study.config import StudyConfig
    from hpcule.study.folder import StudyFolder
    from hpcule.study.grid import StudyGrid
    from hpcule.world.group import World


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
    submit_part.set_defaults(run=submit_items)
    for name, function, what in (
        ("status", status, "show how far each cell is"),
        ("collect", collect, "write cells.csv and cells.parquet, a row a cell"),
        ("report", report_study, "write report.html"),
    ):
        part = parts.add_parser(name, help=what)
        part.add_argument("folder", type=Path, metavar="DIR")
        if name == "status":
            add_json(part)
        if name == "report":
            add_figures(part)
        part.set_defaults(run=function)
    item = parts.add_parser("item", help="do one craft or victim: what a job of `submit` runs")
    item.add_argument("folder", type=Path, metavar="DIR")
    item.add_argument("key", metavar="KEY")
    item.set_defaults(run=do_item)


def _add_file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="YAML file of a study")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the study, kept private")


def run(options: argparse.Namespace) -> None:
    """Run all items here, then collect and report."""
    from hpcule.cli.workers import on_all_ranks

    folder, config, grid, notice = _begin(options)

    def work(world: World) -> None:
        from hpcule.cli.progress import Progress
        from hpcule.study.items import run_all

        with Progress(shown=world.leads) as progress:
            run_all(folder, config, grid, world, progress.update)
        if world.leads:
            _write(folder.path)

    on_all_ranks(
        work,
        given=options.given,
        workers=options.workers,
        config=config.world,
        deterministic=any(craft.config.deterministic for craft in grid.crafts.values()),
        notices=lambda: [notice],
    )


def submit_items(options: argparse.Namespace) -> None:
    """Submit all items that are not done."""
    from hpcule.cli.opened import say
    from hpcule.jobs.site import load_site
    from hpcule.jobs.submit import CommandBatch, submit_batches

    site = load_site(options.site)
    folder, _, grid, notice = _begin(options, begin=not options.dry_run)
    say(notice)
    path = str(folder.path.resolve())
    crafts = [key for key in grid.crafts if folder.result(key) is None]
    victims = [key for key in grid.victims if folder.result(key) is None]
    batches = [
        CommandBatch("craft", [["study", "item", path, key] for key in crafts], joint=True),
        CommandBatch("victim", [["study", "item", path, key] for key in victims], joint=False),
        CommandBatch("report", [["study", "report", path]], joint=False),
    ]
    lines = submit_batches(batches, site, folder.path, dry_run=options.dry_run)
    print("\n".join(lines))


def do_item(options: argparse.Namespace) -> None:
    """Do one craft or victim on all ranks that a launcher started."""
    from hpcule.cli.progress import Progress
    from hpcule.cli.workers import on_all_ranks
    from hpcule.study.grid import Craft, find_item
    from hpcule.study.items import do_craft, do_victim, require_unchanged

    folder, config, grid = _open(options.folder)
    item = find_item(grid, options.key)

    def work(world: World) -> None:
        with Progress(shown=world.leads) as progress:
            if isinstance(item, Craft):
                do_craft(folder, config, item, world, progress.update)
            else:
                do_victim(folder, config, item, world, progress.update)

    if folder.result(item.key) is None:
        require_unchanged(folder, config)
        deterministic = isinstance(item, Craft) and item.config.deterministic
        on_all_ranks(work, given=options.given, workers=None, config=config.world, deterministic=deterministic)


def status(options: argparse.Namespace) -> None:
    """Print a line a cell, and the counts."""
    from hpcule.cli.opened import show
    from hpcule.study.status import cell_status

    folder, _, grid = _open(options.folder)
    found = [cell_status(folder, grid, cell) for cell in grid.cells]
    if options.json:
        print(json.dumps([status.document() for status in found]))
        return
    for entry in found:
        show(entry.line())
    counts = Counter(entry.state for entry in found)
    print(", ".join(f"{count} {state}" for state, count in counts.items()))


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
    _open(options.folder)
    _write(options.folder, options.figures)


def _begin(
    options: argparse.Namespace, *, begin: bool = True
) -> tuple[StudyFolder, StudyConfig, StudyGrid, str | None]:
    """The folder, configuration and grid of a study, and what is to be said about its data."""
    from hpcule.config.errors import IN_STUDY, setting_in
    from hpcule.config.tree import build_config, load_yaml
    from hpcule.data.left_out import left_out_notice
    from hpcule.study.config import StudyConfig
    from hpcule.study.folder import StudyFolder
    from hpcule.study.grid import expand
    from hpcule.study.items import open_samples, samples_of

    config = build_config(StudyConfig, load_yaml(options.file))
    with setting_in(IN_STUDY):
        source, test = open_samples(config)
        samples = samples_of(source, test)
    grid = expand(config, samples)
    folder = StudyFolder(options.out)
    if begin:
        folder.begin(config, samples)
    return folder, config, grid, left_out_notice(source, test)


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
        from hpcule.report.figures import study_figures
        from hpcule.report.study import factor_names
        from hpcule.report.study_panels import measured_noise_scales

        drawn = study_figures(found, factor_names(config), measured_noise_scales(found, grid, folder.result))
        write_figures(drawn, path / "figures", figures)
