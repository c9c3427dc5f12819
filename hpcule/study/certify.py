"""A certificate of learnability: networks trained on protected and on clean samples, and their accuracy under noise."""

from __future__ import annotations

import dataclasses
import io
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from hpcule import __version__
from hpcule.config.errors import DataError, StoreError
from hpcule.config.run import WorldConfig
from hpcule.config.tree import to_tree
from hpcule.craft.weight_noise import moved
from hpcule.data.keyed import key
from hpcule.data.source import Source
from hpcule.measure.accuracy import chance_level, has_learnt
from hpcule.measure.certificate import certify as bounds_of
from hpcule.measure.certificate import fewest_draws, largest_shift
from hpcule.store.files import private_directory, sha256_file, write_atomically
from hpcule.store.fingerprint import fingerprint, require_same_samples
from hpcule.store.manifest import MANIFEST
from hpcule.store.read import StoreReader
from hpcule.study.grid import digest
from hpcule.study.kept import Found, Kept
from hpcule.victim.config import VictimConfig
from hpcule.victim.network import build_network, is_fast
from hpcule.victim.published import Published, clean
from hpcule.victim.testing import answers
from hpcule.victim.train import train_network
from hpcule.victim.training_data import TrainingData
from hpcule.world.group import World

Basis = Literal["clean", "protected"]
BASES: tuple[Basis, ...] = ("clean", "protected")
BLOCK = 20
"""Draws in a file."""


@dataclass(frozen=True, kw_only=True)
class CertifyConfig:
    """What is certified, and how surely."""

    victim: VictimConfig = field(default_factory=lambda: VictimConfig(weight_noise=0.25))
    """The network around whose weights the certificate holds."""
    seed: int = 0
    samples: int | None = None
    """Train on so many samples; None: on all."""
    deviation: float = 0.25
    """Of the noise on every weight."""
    draws: int = 1000
    quantile: float = 0.9
    """The accuracy that a draw stays below with this probability is bounded."""
    etas: tuple[float, ...] = (0.05, 0.1, 0.2, 0.3)
    """L2 lengths of a move of all weights together that the bound holds for."""
    alpha: float = 0.01
    """How likely any of the bounds may be wrong."""
    world: WorldConfig = field(default_factory=WorldConfig)

    def __post_init__(self) -> None:
        """Refuse what so many draws cannot certify."""
        if self.deviation <= 0 or self.draws < 1 or not self.etas or min(self.etas) < 0:
            raise ValueError("deviation must be above 0, draws at least 1, and etas one or more of at least 0")
        if not 0 < self.quantile < 1 or not 0 < self.alpha < 1:
            raise ValueError("quantile and alpha must lie between 0 and 1")
        alpha = self.alpha / len(self.etas)
        limit = self.deviation * largest_shift(self.draws, self.quantile, alpha)
        if max(self.etas) > limit:
            needed = fewest_draws(self.quantile, max(self.etas) / self.deviation, alpha)
            raise ValueError(
                f"etas up to {max(self.etas):g}: with {self.draws:,} draws no more than {max(limit, 0):.3f} can be "
                f"certified, whatever the samples; take draws={needed:,}, or smaller etas"
            )


class Certificate:
    """The draws of one evaluation, in a folder that a restart goes on with."""

    def __init__(self, config: CertifyConfig, store: StoreReader, data: TrainingData, test: Source, out: Path) -> None:
        self._config, self._store, self._data, self._test_source = config, store, data, test
        self._test = Published(test, resident=data.resident)
        self._out = out
        facts = (store.manifest.source.fingerprint, fingerprint(test, [(0, len(test))]), data.ids.tolist())
        basis = digest(__version__, to_tree(config.victim), config.seed, facts)
        self._names = {"clean": digest(basis), "protected": digest(basis, sha256_file(store.path / MANIFEST))}
        self._loaded: dict[Basis, nn.Module] = {}

    def centres(self, world: World, report: Callable[[str, int, int], None]) -> dict[Basis, Found]:
        """Train the networks that are not there, a rank each, and return what they reached."""

        def train(basis: Basis, number: int, count: int) -> Found:
            publish = self._store.published if basis == "protected" else clean
            train = self._data.published(publish, "plain", self._config.seed)

            def progress(done: int, total: int) -> None:
                report(f"network, {basis}", number * total + done, count * total)

            seed, victim = self._config.seed, self._config.victim
            network, result = train_network(victim, train, self._test, world.alone(), seed, progress)
            buffer = io.BytesIO()
            torch.save(network.state_dict(), buffer)
            private_directory(self._out / "networks")
            write_atomically(self._weights(basis), buffer.getvalue())
            return {"last": result.last.test, "train": result.last.train, "steps": result.steps}

        return Kept(self._out / "networks").complete({basis: self._names[basis] for basis in BASES}, world, train)

    def accuracies(self, world: World, report: Callable[[str, int, int], None]) -> dict[Basis, list[float]]:
        """Accuracy of every draw by number, the missing ones drawn now, spread over the ranks."""
        blocks = range(-(-self._config.draws // BLOCK))
        noise = digest(self._config.deviation)
        items = {(basis, block): f"{self._names[basis]}-{noise}-{block:05}" for basis in BASES for block in blocks}

        def draw(item: tuple[Basis, int], number: int, count: int) -> Found:
            basis, block = item
            report("draws", number, count)
            network = self._network(basis, world)
            correct = [self._draw(network, block * BLOCK + place, world) for place in range(BLOCK)]
            report("draws", number + 1, count)
            return {"correct": correct}

        found = Kept(self._out / "draws").complete(items, world, draw)
        drawn = {basis: [n for block in blocks for n in found[basis, block]["correct"]] for basis in BASES}
        return {basis: [n / len(self._test) for n in drawn[basis][: self._config.draws]] for basis in BASES}

    def _draw(self, network: nn.Module, number: int, world: World) -> int:
        """Correct answers with the noise of this number, which is the same for all networks."""
        seed = key(self._config.seed, "certificate", number) % 2**63
        numbers = np.arange(len(self._test), dtype=np.int64)
        fast = is_fast(self._config.victim, world.device)
        with moved(self._config.deviation, seed)(network):
            pairs = answers(network, self._test, numbers, world.device, fast=fast)
            return sum(int((logits.argmax(1) == labels).sum()) for logits, labels in pairs)

    def _network(self, basis: Basis, world: World) -> nn.Module:
        if basis not in self._loaded:
            network = build_network(self._config.victim, self._data.source, self._config.seed, world.device)
            path = self._weights(basis)
            try:
                network.load_state_dict(torch.load(path, map_location=world.device, weights_only=True))
            except (OSError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError) as error:
                raise StoreError(f"{path}: {error}; delete the folder {path.parent} to train it again") from None
            self._loaded[basis] = network.eval()
        return self._loaded[basis]

    def _weights(self, basis: Basis) -> Path:
        return self._out / "networks" / f"{self._names[basis]}.pt"


def certify(
    config: CertifyConfig,
    store: StoreReader,
    source: Source,
    test: Source,
    out: Path,
    world: World,
    report: Callable[[str, int, int], None],
) -> dict[str, Any]:
    """Train on protected and on clean samples, draw noise on the weights of both, and bound what is learnt.

    Args:
        config: what is certified.
        store: complete.
        source: the clean samples that it was made for, labelled.
        test: clean test samples of the same task, labelled.
        out: `networks` and `draws` go there; what it holds is not made again.
        world: its ranks share out networks and draws.
        report: called with what is being done, and how much of this rank's is done and in all.

    Returns:
        The content of results.json.

    Raises:
        DataError: there are no labels.
        StoreError: the store was made for other samples, or a file is damaged.
        UsageError: settings that the samples do not allow.
    """
    if source.labels is None or test.labels is None:
        raise DataError(f"{source.name} has no labels: networks are trained with labels; use class folders")
    if world.leads:
        require_same_samples(store.manifest, source)
    data = TrainingData.of(source, config.samples, config.world.resident_mebibytes * 2**20)
    certificate = Certificate(config, store, data, test, out)
    centres = certificate.centres(world, report)
    accuracies = certificate.accuracies(world, report)
    chance = chance_level(test.labels)
    return {
        "kind": "certify",
        "hpcule": __version__,
        "status": "done" if has_learnt(centres["clean"]["last"], chance) else "invalid",
        "data": {"name": source.name, "train": len(data.ids), "test": len(test), "chance": chance},
        "method": store.manifest.method,
        "reduced": store.manifest.reduced,
        "settings": {**to_tree(config), "world": None},
        **{basis: _certified(config, centres[basis], accuracies[basis]) for basis in BASES},
    }


def _certified(config: CertifyConfig, centre: Found, accuracies: list[float]) -> dict[str, Any]:
    bounds = bounds_of(accuracies, config.quantile, config.deviation, config.etas, config.alpha)
    return {
        **centre,
        "mean": fmean(accuracies),
        "quantile": float(np.quantile(accuracies, config.quantile)),
        "bounds": [dataclasses.asdict(bound) for bound in bounds],
        "accuracies": sorted(accuracies),
    }
