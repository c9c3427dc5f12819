"""`hpcule certify STORE --data DATA`: a bound on what is learnt from the protected samples, beside clean ones."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from hpcule.cli.options import add_data, add_out, add_run, add_test


def add_to(verbs: Any) -> None:
    """Declare the verb."""
    parser = verbs.add_parser(
        "certify", help="bound the accuracy around a network that was trained on the protected copy, beside clean ones"
    )
    parser.add_argument("store", type=Path, metavar="STORE")
    add_data(parser)
    add_test(parser)
    add_out(parser, "hpcule-runs/certify", "results.json and report.html go here")
    add_run(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Certify."""
    from hpcule.cli.opened import store_and_data
    from hpcule.cli.submit import ranks, submit
    from hpcule.cli.workers import on_all_ranks
    from hpcule.config.tree import build, load_yaml, with_overrides
    from hpcule.study.certify import CertifyConfig

    file = load_yaml(options.config) if options.config else {}
    config = build(CertifyConfig, with_overrides(file, options.overrides))
    store, source, test = store_and_data(options)
    if options.submit:
        ranks(options)
        submit(options, "certify")
        return
    on_all_ranks(
        lambda world: _certify(options, config, store, source, test, world),
        given=options.given,
        workers=options.workers,
        config=config.world,
    )


def _certify(options: argparse.Namespace, config: Any, store: Any, source: Any, test: Any, world: Any) -> None:
    from hpcule.cli.progress import Progress
    from hpcule.config.tree import dump_yaml, to_tree
    from hpcule.store.files import private_directory, to_json, write_atomically
    from hpcule.study.certify import certify
    from hpcule.study.certify_report import print_certificate, write_certificate

    with Progress(shown=world.leads) as progress:
        results = certify(config, store, source, test, options.out, world, progress.update)
    if not world.leads:
        return
    private_directory(options.out)
    write_atomically(options.out / "results.json", to_json(results))
    write_atomically(options.out / "config.yaml", dump_yaml(to_tree(config)).encode())
    write_certificate(results, options.out / "report.html")
    if options.json:
        print(json.dumps(results))
    else:
        print_certificate(results)
        print(f"Report: {options.out / 'report.html'}")
