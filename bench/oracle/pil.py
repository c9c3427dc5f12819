"""PIL's perturbations next to those of the authors' code, from the same surrogate and the same start.

    git clone https://github.com/jinlinll/pil CHECKOUT && git -C CHECKOUT checkout 50a2803
    python bench/oracle/pil.py CHECKOUT --data DATA

The surrogate is ours: theirs draws other initial weights, and trains the same two linear layers. Their attack then runs
on it as it is, but for its random start, in place of which it gets ours.
"""

from __future__ import annotations

import argparse
import importlib.util
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

from hpcule.craft.method import Problem, ShardResult
from hpcule.craft.methods.pil import PIL, PILConfig
from hpcule.data.opening import Opening
from hpcule.data.partition import Partition
from hpcule.data.reader import Reader
from hpcule.world.group import World
from hpcule.world.keyed import key, uniform
from hpcule.world.launcher import Place

LEVELS = 255


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path, help="folder of the authors' code")
    parser.add_argument("--data", default="digits", help="DATA (default: digits)")
    parser.add_argument("--samples", type=int, default=1000, help="number of samples, at least 512 (default: 1000)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    source = Opening(subset=options.samples).source(options.data)
    if source.labels is None:
        parser.error(f"{options.data} has no labels")
    cut = Partition(len(source), 4)
    world = World(Place("single"), 0, 1, torch.device("cpu"), timedelta(seconds=60))
    method = PIL(
        PILConfig(), Problem(source, cut, Reader(source, cut, 2**30), world, seed=0, exact=True, autocast=False)
    )
    ours = {event.shard: event.delta for event in method.run() if isinstance(event, ShardResult)}
    found = np.concatenate([delta for _, delta in sorted(ours.items()) if delta is not None]).astype(np.int64)

    ids = np.arange(len(source))
    clean = source.read(ids)
    drawn = torch.from_numpy(uniform(key(0, "pil", "start"), ids, clean[0].size)).view(clean.shape)
    start = ((2 * drawn - 1) * (method.config.epsilon / LEVELS)).float()
    images, labels = torch.from_numpy(clean).float() / LEVELS, torch.from_numpy(source.labels).long()
    published = attacked(load(options.checkout / "attacks.py"), method, images, labels, start)
    theirs = np.rint(published.numpy() * LEVELS).astype(np.int64) - clean
    difference = np.abs(found - theirs)
    print(
        f"{source.name}, {len(source):,} samples: {(difference > 0).sum():,} of {difference.size:,} values differ, "
        f"{(difference > 1).sum():,} by more than one level, the largest difference is {difference.max()}; the largest "
        f"perturbation is {np.abs(found).max()} levels, theirs {np.abs(theirs).max()}"
    )


def load(file: Path) -> ModuleType:
    """A module of the checkout."""
    spec = importlib.util.spec_from_file_location("authors", file)
    if spec is None or spec.loader is None or not file.is_file():
        raise SystemExit(f"{file} is not there: name the folder of the authors' code")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def attacked(authors: ModuleType, method: PIL, images: Tensor, labels: Tensor, start: Tensor) -> Tensor:
    """What their attack publishes, with our linear map and our start."""
    surrogate = nn.Sequential(nn.Flatten(), *(layer(weight) for weight in method.weights))
    config = method.config
    adversary = authors.PILAdversary(
        surrogate,
        num_classes=method.classes,
        epsilon=config.epsilon / LEVELS,
        alpha=config.epsilon / (10 * LEVELS),
        lmd=config.mix,
        steps=config.steps,
        device="cpu",
    )
    with mock.patch.object(torch.Tensor, "uniform_", lambda noise, *bounds: noise.copy_(start)):
        published: Tensor = adversary.attack(images, labels)
    return published


def layer(weight: Tensor) -> nn.Linear:
    """A linear layer without bias."""
    found = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    found.weight.data.copy_(weight)
    return found


if __name__ == "__main__":
    main()
