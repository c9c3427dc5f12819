"""`hpcule train --data DATA [--store STORE]`: one victim, trained by all ranks together."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from hpcule.cli.options import Verbs, add_access, add_data, add_out, add_run, add_test

if TYPE_CHECKING:
    from hpcule.world.group import World


def add_to(verbs: Verbs) -> None:
    """Declare the verb."""
    parser = verbs.add_parser("train", help="train one victim, on clean or on protected samples")
    add_data(parser)
    parser.add_argument("--store", type=Path, metavar="STORE", help="train on the samples as this store protects them")
    add_access(parser)
    add_test(parser)
    add_out(parser, "hpcule-runs/train", "results.json goes here")
    add_run(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Train one victim, on all ranks together."""
    from hpcule.cli.opened import key_of, show
    from hpcule.cli.submit import run_or_submit
    from hpcule.config.errors import IN_SET, IN_STORE, setting_in
    from hpcule.config.tree import build_config, load_yaml, with_overrides
    from hpcule.data.check import check_same_task
    from hpcule.data.left_out import left_out_notice
    from hpcule.data.schedule import small_notice
    from hpcule.store.read import StoreReader
    from hpcule.store.vault import Vault
    from hpcule.tasks.table import task_of
    from hpcule.victim.single import TrainConfig, opening_of, train

    file = load_yaml(options.config) if options.config else {}
    config = build_config(TrainConfig, with_overrides(file, options.overrides))
    store = StoreReader(Vault(options.store, key_of(options))) if options.store else None
    opening = opening_of(config, store)
    with setting_in(IN_STORE if store else IN_SET):
        source, test = opening.source(options.data), opening.test(options.data, options.test)
        check_same_task(source, test)

    def work(world: World) -> None:
        from hpcule.cli.progress import Progress

        with Progress(shown=world.leads) as progress:
            results = train(config, source, test, store, options.out, world, progress.update)
        if world.leads:
            task = task_of(config.victim.task, test)
            line = (
                f"test {task.measure} {results['last']:.4f} after {results['steps']} steps, best {results['best']:.4f}"
            )
            if (headline := task.headline(test).measure) != task.measure:
                line += f"; {headline} {results['curve'][-1]['measures'][headline]:.4f}, since classes are unequal"
            show(json.dumps(results) if options.json else f"{line}; {options.out / 'results.json'}")

    stores = [options.store] if options.store else []
    notices = [left_out_notice(source, test), small_notice("victim.batch", config.victim.batch, len(source))]
    run_or_submit(options, "train", work, config.world, stores, notices)
