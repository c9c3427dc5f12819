"""`hpcule demo`: the main job on real data that come with scikit-learn, in a minute or two on two cores.

Scikit-learn's digits (1,797 scans of handwriting, 8x8) are enlarged to 32x32, protected with PIL, verified, and
measured with victims trained on the protected copy, on the clean images and on images with random noise.
"""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from hpcule.cli.options import Verbs, add_json, add_out, tell
from hpcule.config.errors import StoreError

WORKERS = 2
"""Number of local processes, if nothing else has started this one: victims are dealt out to them."""
CRAFT = ["image_size=32", "method.epsilon=16", "world.threads=1"]
EVALUATE = ["victim.network=convnet", "victim.epochs=10", "victim.batch=32", "victim.learning_rate=0.05"]

if TYPE_CHECKING:
    from hpcule.craft.config import CraftConfig
    from hpcule.data.source import Source
    from hpcule.evaluation.suites import EvaluateConfig
    from hpcule.store.vault import Vault
    from hpcule.world.group import World


def add_to(verbs: Verbs) -> None:
    """Declare the verb."""
    parser = verbs.add_parser("demo", help="protect and measure a small real collection, start to end")
    add_out(parser, "hpcule-runs/demo", "store, results.json and report.html go here")
    add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Craft, verify, evaluate, report."""
    from hpcule.cli.workers import on_all_ranks
    from hpcule.config.tree import build_config, with_overrides
    from hpcule.craft.table import configure
    from hpcule.evaluation.suites import EvaluateConfig
    from hpcule.store.vault import Vault
    from hpcule.world.launcher import detect

    vault = Vault(options.out / "store")
    craft_config = configure("pil", "digits", preset=None, file={}, overrides=CRAFT)
    evaluate_config = build_config(EvaluateConfig, with_overrides({}, EVALUATE))
    source, test = craft_config.source("digits"), craft_config.test("digits", None)

    def work(world: World) -> None:
        _demo(options, craft_config, evaluate_config, vault, source, test, world)

    workers = min(WORKERS, len(os.sched_getaffinity(0))) if detect().launcher == "single" else None
    on_all_ranks(work, given=options.given, workers=workers, config=craft_config.world)


def _demo(
    options: argparse.Namespace,
    craft_config: CraftConfig,
    evaluate_config: EvaluateConfig,
    vault: Vault,
    source: Source,
    test: Source,
    world: World,
) -> None:
    from hpcule.cli.progress import Progress
    from hpcule.craft.run import craft
    from hpcule.evaluation.bench import Bench
    from hpcule.evaluation.evaluate import evaluate
    from hpcule.report.protection import write_evaluation
    from hpcule.report.table import print_results
    from hpcule.store.read import StoreReader
    from hpcule.store.verify import verify
    from hpcule.world.signals import StopFlag

    def say(text: str) -> None:
        if world.leads and not options.json:
            print(text, flush=True)

    say(f"1. Crafting: PIL on {len(source):,} handwritten digits, 16 of 255 levels, into {vault.path}")
    craft(craft_config, source, vault, world, StopFlag(), resume=True, report=lambda step: None)
    problems = verify(vault, source)
    if problems:
        raise StoreError(f"{vault.path}: {problems[0]}; remove {options.out} and run the demo again")
    say("2. Verified: every byte, every id, the budget. Now 9 victims: 3 seeds each on clean, noisy, protected images")
    with Progress(shown=world.leads) as progress:
        store = StoreReader(vault)
        bench = Bench(store=store, source=source, test=test, out=options.out, world=world, report=progress.update)
        results, pictures = evaluate(evaluate_config, bench)
    if world.leads:
        write_evaluation(options.out, evaluate_config, results, pictures)
        tell(options, results, lambda: print_results(results))
    say(f"Next: hpcule export {vault.path} --data digits --out published --format folder   (the copy to publish)")
