"""A certificate of learnability: networks trained on protected and on clean samples, and their accuracy under noise."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from statistics import fmean
from typing import cast

import numpy as np
from torch import nn

from hpcule.config.digest import digest
from hpcule.config.ranges import setting
from hpcule.evaluation.bench import Bench
from hpcule.measure.certificate import certified_bounds as bounds_of
from hpcule.measure.certificate import fewest_draws, largest_shift
from hpcule.nets.weight_noise import moved
from hpcule.probes.documents import Basis, CertificateDocument, CertificateSettings, CertifiedDocument
from hpcule.probes.networks import BASES, Networks, NetworksConfig, TrainedNetwork
from hpcule.victim.config import VictimConfig
from hpcule.victim.kept import Kept
from hpcule.victim.network import is_fast
from hpcule.world.keyed import key

Drawn = dict[Basis, list[float]]
BLOCK = 20
"""Number of draws in a file."""


@dataclass(frozen=True)
class Draws:
    """The headline measure of each draw of a block on the test samples."""

    reached: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class CertifyConfig(NetworksConfig):
    """What is certified, and how surely."""

    victim: VictimConfig = field(default_factory=lambda: VictimConfig(weight_noise=0.25))
    """The network around whose weights the certificate holds."""
    deviation: float = setting(0.25, above=0)
    """Standard deviation of the Gaussian noise on every weight."""
    draws: int = setting(1000, at_least=1)
    quantile: float = setting(0.9, above=0, below=1)
    """The accuracy that a draw stays below with this probability is bounded."""
    etas: tuple[float, ...] = setting((0.05, 0.1, 0.2, 0.3), at_least=0)
    """L2 lengths of a move of all weights together that the bound holds for."""
    alpha: float = setting(0.01, above=0, below=1)
    """How likely any of the bounds may be wrong."""

    def __post_init__(self) -> None:
        """Refuse what this number of draws cannot certify."""
        super().__post_init__()
        if not self.etas:
            raise ValueError("etas=[]: at least one")
        alpha = self.alpha / len(self.etas)
        limit = self.deviation * largest_shift(self.draws, self.quantile, alpha)
        if max(self.etas) > limit:
            needed = fewest_draws(self.quantile, max(self.etas) / self.deviation, alpha)
            raise ValueError(
                f"etas up to {max(self.etas):g}: with {self.draws:,} draws no more than {max(limit, 0):.3f} can be "
                f"certified, whatever the samples; take draws={needed:,}, or smaller etas"
            )


def _accuracies(config: CertifyConfig, networks: Networks) -> Drawn:
    """Accuracy of every draw by number, the missing ones drawn now, spread over the ranks."""
    bench = networks.bench
    blocks = range(-(-config.draws // BLOCK))
    noise = digest(config.deviation)
    items = {(basis, block): f"{networks.names[basis]}-{noise}-{block:05}" for basis in BASES for block in blocks}
    load = cache(lambda basis: networks.load(basis, networks.epochs[-1]))

    def draw(item: tuple[Basis, int], number: int, count: int) -> Draws:
        basis, block = item
        bench.report("draws", number, count)
        numbers = range(block * BLOCK, (block + 1) * BLOCK)
        reached = tuple(_draw(config, load(basis), networks, number) for number in numbers)
        bench.report("draws", number + 1, count)
        return Draws(reached)

    found = Kept.of(bench.out / "draws", Draws).complete(items, bench.world, draw)
    drawn = {basis: [value for block in blocks for value in found[basis, block].reached] for basis in BASES}
    return {basis: drawn[basis][: config.draws] for basis in BASES}


def _draw(config: CertifyConfig, network: nn.Module, networks: Networks, number: int) -> float:
    """The headline measure with the noise of this number, which is the same for all networks."""
    device = networks.bench.world.device
    with moved(config.deviation, key(config.seed, "certificate", number) % 2**63)(network):
        return networks.measure(network, fast=is_fast(config.victim, device))


def certify(config: CertifyConfig, bench: Bench) -> CertificateDocument:
    """Train on protected and on clean samples, draw noise on the weights of both, and bound what is learnt.

    Args:
        config: what is certified.
        bench: `networks` and `draws` go to its folder.

    Returns:
        The content of results.json.

    Raises:
        DataError: there are no labels.
        StoreError: the store was made for other samples, or a file is damaged.
        UsageError: settings that the samples do not allow.
    """
    networks = Networks(config, 1, bench)
    centres = networks.train()
    accuracies = _accuracies(config, networks)
    return {
        "kind": "certify",
        **networks.facts(centres),
        "settings": cast("CertificateSettings", networks.settings()),
        "clean": _certified(config, centres["clean"], accuracies["clean"]),
        "protected": _certified(config, centres["protected"], accuracies["protected"]),
    }


def _certified(config: CertifyConfig, centre: TrainedNetwork, accuracies: list[float]) -> CertifiedDocument:
    bounds = bounds_of(accuracies, config.quantile, config.deviation, config.etas, config.alpha)
    return {
        "last": centre.last,
        "train": centre.train,
        "mean": fmean(accuracies),
        "quantile": float(np.quantile(accuracies, config.quantile)),
        "bounds": [
            {"eta": bound.eta, "quantile": bound.quantile, "rank": bound.rank, "accuracy": bound.accuracy}
            for bound in bounds
        ],
        "accuracies": sorted(accuracies),
    }
