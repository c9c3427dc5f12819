"""`hpcule craft METHOD --data DATA --out STORE`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from hpcule.cli.options import Verbs, add_access, add_data, add_preset, add_run, configured, settled

if TYPE_CHECKING:
    from hpcule.craft.config import CraftConfig
    from hpcule.craft.run import CraftDocument
    from hpcule.data.source import Source
    from hpcule.store.vault import Vault
    from hpcule.world.group import World


def add_to(verbs: Verbs) -> None:
    """Declare the verb."""
    parser = verbs.add_parser("craft", help="craft the perturbation of a collection into a store", description=__doc__)
    parser.add_argument("method", metavar="METHOD", help="em, pil, uc, ...: `hpcule methods` lists them")
    add_data(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="STORE", help="folder of the store, kept private")
    add_preset(parser)
    parser.add_argument("--resume", action="store_true", help="continue an interrupted run in STORE")
    parser.add_argument(
        "--exclude",
        action="append",
        default=[],
        metavar="PATTERN",
        help="files that are no samples, such as '*_mask.png': export copies them as they are; may be repeated",
    )
    add_access(parser)
    add_run(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Craft the perturbation of DATA into STORE, here or as a job of a batch system."""
    from hpcule.cli.opened import key_of, privacy_notice
    from hpcule.cli.submit import ranks, submit
    from hpcule.cli.workers import on_all_ranks
    from hpcule.craft.preparation import check
    from hpcule.store.vault import Vault

    vault, config = Vault(options.out, key_of(options)), settled(options)
    here = cache(partial(configured, options))
    """Opens the samples in this process; ranks of a launcher open them together."""

    def check_here(workers: int) -> None:
        privacy_notice([options.out], strict=options.strict)
        check(*here(), vault, resume=options.resume, workers=workers)

    if options.submit:
        check_here(ranks(options))
        submit(options, "craft", "--resume")
        return
    on_all_ranks(
        lambda world: _craft(options, here, vault, world),
        given=options.given,
        workers=options.workers,
        config=config.world,
        deterministic=config.deterministic,
        check=check_here,
    )


def _craft(
    options: argparse.Namespace, here: Callable[[], tuple[CraftConfig, Source]], vault: Vault, world: World
) -> None:
    from hpcule.cli.opened import privacy_notice, say, show
    from hpcule.cli.progress import Progress
    from hpcule.craft.method import Step
    from hpcule.craft.preparation import batch_notice
    from hpcule.craft.run import craft
    from hpcule.data.left_out import left_out_notice
    from hpcule.data.masks import mask_notice
    from hpcule.data.opened_once import open_once
    from hpcule.world.signals import stop_flag

    notice = world.lead(lambda: privacy_notice([options.out], strict=options.strict))
    if world.size == 1:
        config, source = here()
    else:
        config, source = configured(options, lambda config: open_once(world, lambda: config.source(config.data)))
    if world.leads:
        say(notice, left_out_notice(source), mask_notice(source), batch_notice(config, source, world.size))
    with Progress(shown=world.leads) as progress:

        def report(step: Step) -> None:
            note = "".join(f", {name} {value:.4g}" for name, value in step.figures.items())
            progress.update(step.stage, step.done, step.total, note)

        summary = craft(config, source, vault, world, stop_flag(), resume=options.resume, report=report)
    if world.leads:
        show(json.dumps(summary) if options.json else _sentence(summary))


def _sentence(summary: CraftDocument) -> str:
    if summary["already_complete"]:
        return f"{summary['store']} is complete and undamaged; nothing to do."
    steps = ""
    if summary["batch_taken"] is not None:
        steps = f", {summary['steps']:,} training steps of {summary['batch_taken']:,} samples,"
    return (
        f"Crafted {summary['samples']:,} samples with {summary['method']} on {summary['workers']} worker(s) in "
        f"{summary['craft_seconds']:.1f} s{steps} into {summary['store']}. Keep this folder private."
    )
