"""`hpcule certify|distance|recover|probe strip STORE`: measures on networks trained on protected and clean samples."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from hpcule.cli.options import Verbs, add_access, add_data, add_out, add_run, add_test, tell

if TYPE_CHECKING:
    from hpcule.evaluation.bench import Bench
    from hpcule.probes.documents import ProbeDocument
    from hpcule.probes.networks import NetworksConfig
    from hpcule.world.group import World


_Config = TypeVar("_Config", bound="NetworksConfig")
_Document = TypeVar("_Document", bound="ProbeDocument")


def add_to(verbs: Verbs) -> None:
    """Declare the four verbs, the last one as a part of `probe`."""
    attacks = verbs.add_parser("probe", help="try an attack on a store").add_subparsers(metavar="ATTACK", required=True)
    for parsers, name, run, what in (
        (verbs, "certify", run_certify, "bound the accuracy near a network trained on the protected copy"),
        (
            verbs,
            "distance",
            run_distance,
            "measure the Unlearnable Distance: how many layers learn from the copy",
        ),
        (verbs, "recover", run_recover, "let a network trained on the protected copy learn from a few clean samples"),
        (attacks, "strip", run_strip, "take off all samples what a few clean originals show of the perturbation"),
    ):
        parser = parsers.add_parser(name, help=what, description=f"{what}; each figure stands next to a clean control.")
        parser.add_argument("store", type=Path, metavar="STORE")
        add_access(parser)
        add_data(parser)
        add_test(parser)
        add_out(parser, f"hpcule-runs/{name}", "results.json and report.html go here")
        add_run(parser)
        parser.set_defaults(run=run)


def run_certify(options: argparse.Namespace) -> None:
    """Bound what networks near the trained ones can learn."""
    from hpcule.probes.certify import CertifyConfig, certify
    from hpcule.report.probes import print_certificate

    _probe(options, "certify", CertifyConfig, certify, print_certificate)


def run_distance(options: argparse.Namespace) -> None:
    """Measure the Unlearnable Distance from the sharpness of layers."""
    from hpcule.probes.unlearnable_distance import DistanceConfig, measure_distance
    from hpcule.report.probes import print_distance

    _probe(options, "distance", DistanceConfig, measure_distance, print_distance)


def run_recover(options: argparse.Namespace) -> None:
    """Measure what a few clean samples bring back."""
    from hpcule.probes.recovery import RecoveryConfig, measure_recovery
    from hpcule.report.probes import print_recovery

    _probe(options, "recover", RecoveryConfig, measure_recovery, print_recovery)


def run_strip(options: argparse.Namespace) -> None:
    """Measure what is left once known originals have shown the perturbation."""
    from hpcule.probes.strip import StripConfig, measure_strip
    from hpcule.report.probes import print_strip

    _probe(options, "strip", StripConfig, measure_strip, print_strip)


def _probe(
    options: argparse.Namespace,
    name: str,
    config_class: type[_Config],
    measure: Callable[[_Config, Bench], _Document],
    show: Callable[[_Document], None],
) -> None:
    """Build the configuration, measure on all ranks, and let rank 0 print and write the results.

    Args:
        options: those of the verb.
        name: the verb's.
        config_class: the class of its configuration.
        measure: called with the configuration and the bench.
        show: prints results.
    """
    from hpcule.cli.opened import store_and_data
    from hpcule.cli.progress import Progress
    from hpcule.cli.submit import run_or_submit
    from hpcule.config.tree import build_config, dump_yaml, load_yaml, to_tree, with_overrides
    from hpcule.data.left_out import left_out_notice
    from hpcule.evaluation.bench import Bench
    from hpcule.report.probes import write_probe
    from hpcule.store.files import private_directory, to_json, write_atomically

    file = load_yaml(options.config) if options.config else {}
    config = build_config(config_class, with_overrides(file, options.overrides))
    store, source, test = store_and_data(options)

    def work(world: World) -> None:
        with Progress(shown=world.leads) as progress:
            bench = Bench(store=store, source=source, test=test, out=options.out, world=world, report=progress.update)
            results = measure(config, bench)
        if not world.leads:
            return
        private_directory(options.out)
        write_atomically(options.out / "results.json", to_json(results))
        write_atomically(options.out / "config.yaml", dump_yaml(to_tree(config)).encode())
        write_probe(results, options.out / "report.html")
        tell(options, results, lambda: show(results))

    run_or_submit(options, name, work, config.world, [options.store], [left_out_notice(source, test)])
