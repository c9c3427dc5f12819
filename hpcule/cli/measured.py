"""What the verbs have in common that train networks on a store and on clean samples and measure something of both."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hpcule.cli.options import add_access, add_data, add_out, add_run, add_test, tell


def add_verb(verbs: Any, name: str, what: str, run: Callable[[argparse.Namespace], None]) -> None:
    """Declare `hpcule NAME STORE --data DATA`."""
    parser = verbs.add_parser(name, help=what)
    parser.add_argument("store", type=Path, metavar="STORE")
    add_access(parser)
    add_data(parser)
    add_test(parser)
    add_out(parser, f"hpcule-runs/{name}", "results.json and report.html go here")
    add_run(parser)
    parser.set_defaults(run=run)


def run_measure(
    options: argparse.Namespace,
    name: str,
    config_class: type[Any],
    measure: Callable[..., dict[str, Any]],
    show: Callable[[dict[str, Any]], None],
    write: Callable[[dict[str, Any], Path], None],
) -> None:
    """Build the configuration, measure on all ranks, and let rank 0 show and write what was found.

    Args:
        options: of the verb.
        name: of the verb.
        config_class: of its configuration, with a `world`.
        measure: called with configuration, store, source, test set, output folder, world and progress.
        show: prints results.
        write: writes the report to a path.
    """
    from hpcule.cli.opened import store_and_data
    from hpcule.cli.progress import Progress
    from hpcule.cli.submit import run_or_submit
    from hpcule.config.tree import build, dump_yaml, load_yaml, to_tree, with_overrides
    from hpcule.store.files import private_directory, to_json, write_atomically

    file = load_yaml(options.config) if options.config else {}
    config = build(config_class, with_overrides(file, options.overrides))
    store, source, test = store_and_data(options)

    def work(world: Any) -> None:
        with Progress(shown=world.leads) as progress:
            results = measure(config, store, source, test, options.out, world, progress.update)
        if not world.leads:
            return
        private_directory(options.out)
        write_atomically(options.out / "results.json", to_json(results))
        write_atomically(options.out / "config.yaml", dump_yaml(to_tree(config)).encode())
        write(results, options.out / "report.html")
        tell(options, results, lambda: show(results))

    run_or_submit(options, name, work, config.world, [options.store])
