"""`hpcule doctor`: versions, the launcher that was found, ranks and devices, one all-reduce."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, TypedDict

from hpcule.cli.options import Verbs, add_json, add_set, positive

if TYPE_CHECKING:
    from hpcule.world.group import World

PACKAGES = ("torch", "torchvision", "numpy", "h5py", "scikit-learn", "pillow")
EXTRAS = {
    "encoder": "efficientnet_lite_pytorch",
    "medmnist": "medmnist",
    "mpi": "mpi4py",
    "slurm": "submitit",
    "psij": "psij",
    "deepspeed": "deepspeed",
}


class RankDocument(TypedDict):
    """What one rank computes with."""

    rank: int
    host: str
    device: str
    threads: int
    fast_bf16: bool


class DoctorDocument(TypedDict):
    """What `hpcule doctor --json` prints; `address` is that of rank 0, or the folder in which the ranks
    meet, or None for a single process."""

    python: str
    packages: dict[str, str]
    extras: dict[str, bool]
    codecs: dict[str, bool]
    launcher: str
    address: str | None
    ranks: list[RankDocument]
    all_reduce: str


def add_to(verbs: Verbs) -> None:
    """Declare the verb."""
    parser = verbs.add_parser("doctor", help="show versions, launcher, ranks and devices, and try one all-reduce")
    parser.add_argument("--workers", type=positive, metavar="N", help="start N local processes (default: 1)")
    add_set(parser, "how the machine is used, for example world.threads=1 or world.device=cpu; may be repeated")
    output = parser.add_mutually_exclusive_group()
    add_json(output)
    output.add_argument("--site", action="store_true", help="print a site file for this cluster, by what Slurm says")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Examine the machine, on all ranks.

    Raises:
        UsageError: --set names something else than a setting of `world`, or --site where Slurm is not.
    """
    from dataclasses import fields

    if options.site:
        _propose_site()
        return
    from hpcule.cli.workers import on_all_ranks
    from hpcule.config.errors import UsageError
    from hpcule.config.run import WorldConfig
    from hpcule.config.tree import build_config, unknown, with_overrides

    tree = with_overrides({}, options.overrides)
    for name in tree:
        if name != "world":
            raise UsageError(unknown("setting", name, [f"world.{field.name}" for field in fields(WorldConfig)]))
    config = build_config(WorldConfig, tree.get("world", {}), "world.")
    on_all_ranks(lambda world: _examine(options, world), given=options.given, workers=options.workers, config=config)


def _propose_site() -> None:
    from hpcule.jobs.limits import accounts
    from hpcule.jobs.proposal import proposed_site
    from hpcule.jobs.scheduler import partitions

    print(proposed_site(partitions(), accounts()), end="")


def _examine(options: argparse.Namespace, world: World) -> None:
    import importlib.metadata
    import importlib.util
    import platform

    import torch

    from hpcule.data.codecs import codecs
    from hpcule.world.precision import has_fast_bf16

    mine: RankDocument = {
        "rank": world.rank,
        "host": world.place.host,
        "device": str(world.device),
        "threads": torch.get_num_threads(),
        "fast_bf16": has_fast_bf16(world.device),
    }
    ranks = world.gather(mine)
    total = int(world.add(torch.ones((), dtype=torch.int64, device=world.device)))
    if not world.leads:
        return
    found: DoctorDocument = {
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "extras": {extra: importlib.util.find_spec(module) is not None for extra, module in EXTRAS.items()},
        "codecs": codecs(),
        "launcher": world.place.launcher,
        "address": world.place.meeting if world.size > 1 else None,
        "ranks": ranks,
        "all_reduce": f"{total} of {world.size} ranks answered",
    }
    if options.json:
        print(json.dumps(found, indent=2))
        return
    print(f"python {found['python']}, " + ", ".join(f"{name} {version}" for name, version in found["packages"].items()))
    print("extras: " + ", ".join(f"{name} {'yes' if there else 'no'}" for name, there in found["extras"].items()))
    works, fails = ([name for name, there in found["codecs"].items() if there is which] for which in (True, False))
    print(f"codecs: {', '.join(works)}" + (f"; missing: {', '.join(fails)}" if fails else ""))
    print(f"launcher: {found['launcher']}" + (f", met at {found['address']}" if found["address"] else ""))
    for rank in ranks:
        bf16 = "fast bf16" if rank["fast_bf16"] else "no fast bf16"
        print(f"rank {rank['rank']} on {rank['host']}: {rank['device']}, {rank['threads']} thread(s), {bf16}")
    print(f"all-reduce: {found['all_reduce']}")
