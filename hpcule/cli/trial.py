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
    from hpcule.cli.workers import on_all_ranks
    from hpcule.study.trial import perform, read_trial

    trial = read_trial(options.folder)
    on_all_ranks(
        lambda world: perform(trial, options.folder, world),
        given=options.given,
        workers=options.workers,
        config=trial.config.world,
        deterministic=trial.config.deterministic,
    )
