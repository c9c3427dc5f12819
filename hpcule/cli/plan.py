"""`hpcule plan craft METHOD ...` and `hpcule plan STUDY.yaml`: time, node-hours, memory, disk and traffic beforehand.

em, pil and uc have an explicit cost model and a short measured calibration on this machine. Crafts with any other
method are timed on some samples, with the settings of the run, and extrapolated.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from hpcule.cli.options import Verbs, add_json, add_preset, add_settings, configured, positive

if TYPE_CHECKING:
    from hpcule.planning.machine import Machine
    from hpcule.planning.measurements import Measurements
    from hpcule.study.config import StudyConfig

Assumptions = Mapping[str, list[str]]
Planned: TypeAlias = tuple[str, list[dict[str, Any]], Callable[[Assumptions], None]]
"""What is planned, the plan for each machine as it goes into JSON, and what prints them with their assumptions."""


def add_to(verbs: Verbs) -> None:
    """Declare the verb."""
    parser = verbs.add_parser("plan", help="predict what a craft or a study takes, on any number of nodes")
    parser.add_argument("what", metavar="craft|STUDY.yaml", help="a craft, or the file of a study")
    parser.add_argument("method", metavar="METHOD", nargs="?", help="of a craft: any of `hpcule methods`")
    parser.add_argument("--data", metavar="DATA", help="of a craft: samples like those that are planned for")
    add_preset(parser)
    add_settings(parser)
    parser.add_argument("--samples", type=positive, metavar="N", help="of the planned craft (default: those of DATA)")
    parser.add_argument("--nodes", type=positive, metavar="N", help="default: 1")
    parser.add_argument("--workers-per-node", type=positive, metavar="N", help="default: 1")
    parser.add_argument("--site", action="append", default=[], metavar="SITE", help="nodes and tasks of a site, too")
    parser.add_argument("--latency", type=float, metavar="MICROSECONDS", help="between nodes (default: 20)")
    parser.add_argument("--bandwidth", type=float, metavar="GB/S", help="of a worker between nodes (default: 10)")
    parser.add_argument(
        "--calibration", type=Path, metavar="FILE", help="read what was measured from here; absent: measure, write it"
    )
    add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Measure what is not known, predict, print."""
    from hpcule.planning.measurements import Measurements
    from hpcule.planning.plan import assumptions
    from hpcule.planning.trial import check_alone

    check_alone()
    machines = _machines(options)
    file: Path | None = options.calibration
    stored = file is not None and file.exists()
    known = Measurements.read(file, _say) if file is not None and stored else Measurements(_say)
    title, plans, show = (_craft if options.what == "craft" else _study)(options, machines, known)
    if file is not None and not stored:
        known.write(file)
    _print(title, plans, show, assumptions(known, machines), as_json=options.json)


def plan_here(config: StudyConfig, workers: int, *, as_json: bool) -> None:
    """Measure, predict and print what a study takes on this machine."""
    from hpcule.planning.machine import Machine
    from hpcule.planning.measurements import Measurements
    from hpcule.planning.plan import assumptions
    from hpcule.planning.trial import check_alone

    check_alone()
    machine, known = Machine(name="this machine", nodes=1, workers_per_node=workers), Measurements(_say)
    title, plans, show = _planned(config, [machine], known)
    _print(title, plans, show, assumptions(known, [machine]), as_json=as_json)


def _print(
    title: str, plans: list[dict[str, Any]], show: Callable[[Assumptions], None], basis: Assumptions, *, as_json: bool
) -> None:
    if as_json:
        print(json.dumps({"what": title, "plans": plans, **basis}))
    else:
        show(basis)


def _craft(options: argparse.Namespace, machines: list[Machine], known: Measurements) -> Planned:
    from hpcule.cli.opened import say
    from hpcule.config.errors import UsageError
    from hpcule.data.left_out import left_out_notice
    from hpcule.planning.plan import plan_craft
    from hpcule.report.plan_table import print_craft

    if options.method is None or options.data is None:
        raise UsageError("plan craft needs a method and data: hpcule plan craft METHOD --data DATA")
    config, source = configured(options)
    say(left_out_notice(source))
    samples = options.samples or len(source)
    plans = [plan_craft(config, source, samples, machine, known) for machine in machines]
    title = f"craft {config.method.name}, preset {config.preset}, like {source.name}"
    return title, [plan.document() for plan in plans], lambda basis: print_craft(title, plans, basis)


def _study(options: argparse.Namespace, machines: list[Machine], known: Measurements) -> Planned:
    from hpcule.config.errors import UsageError
    from hpcule.config.tree import build_config, load_yaml
    from hpcule.study.config import StudyConfig

    craft_only = (
        options.method,
        options.data,
        options.preset,
        options.strength,
        options.config,
        options.samples,
        *options.overrides,
    )
    if any(option is not None for option in craft_only):
        raise UsageError(f"{options.what} says what is crafted: leave out METHOD, --data, --preset, --set and the like")
    return _planned(build_config(StudyConfig, load_yaml(Path(options.what))), machines, known)


def _planned(config: StudyConfig, machines: list[Machine], known: Measurements) -> Planned:
    from hpcule.config.errors import IN_STUDY, setting_in
    from hpcule.planning.plan import plan_study
    from hpcule.report.plan_table import print_study

    title = f"study {config.name}"
    with setting_in(IN_STUDY):
        plans = [plan_study(config, machine, known) for machine in machines]
    return title, [plan.document() for plan in plans], lambda basis: print_study(title, plans, basis)


def _machines(options: argparse.Namespace) -> list[Machine]:
    """The machine of --nodes and --workers-per-node, or one node if no site is named either; and every site's."""
    from hpcule.config.errors import one_line
    from hpcule.jobs.site import load_site
    from hpcule.planning.machine import Machine

    network = {"latency_microseconds": options.latency, "gigabytes_per_second": options.bandwidth}
    given = {name: value for name, value in network.items() if value is not None}
    machines = []
    if options.nodes or options.workers_per_node or not options.site:
        nodes, local = options.nodes or 1, options.workers_per_node or 1
        machines.append(Machine(name=f"{nodes} node(s)", nodes=nodes, workers_per_node=local, **given))
    for name in options.site:
        site = load_site(name)
        wanted = site.resources("craft")
        machines.append(
            Machine(
                name=one_line(Path(name).stem),
                nodes=wanted.nodes,
                workers_per_node=wanted.tasks_per_node,
                limit_minutes=wanted.minutes,
                **given,
            )
        )
    return machines


def _say(what: str) -> None:
    print(f"hpcule: measuring {what}", file=sys.stderr, flush=True)
