"""`hpcule trial FOLDER`: one measured run, as `plan` and `scale` start it; not for use by itself."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from hpcule.cli.options import positive


def add_to(verbs: Any) -> None:
    """Declare the verb; without a help text it stays out of the list."""
    parser = verbs.add_parser("trial", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--workers", type=positive, metavar="N")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Do what FOLDER/trial.json says."""
    from hpcule.planning.trial import from_tree, perform
    from hpcule.planning.victim_trial import perform_victim, victim_from_tree
    from hpcule.store.files import read_json

    tree = read_json(options.folder / "trial.json")
    if tree["kind"] == "victim":
        victim = victim_from_tree(tree)
        _start(options, lambda world: perform_victim(victim, options.folder, world), victim.world)
    else:
        trial = from_tree(tree)
        deterministic = trial.config.deterministic
        _start(options, lambda world: perform(trial, options.folder, world), trial.config.world, deterministic)


def _start(options: argparse.Namespace, work: Any, config: Any, deterministic: bool = False) -> None:
    from hpcule.cli.workers import on_all_ranks

    on_all_ranks(work, given=options.given, workers=options.workers, config=config, deterministic=deterministic)
