"""Stripping a store: with a few originals of every class, the perturbation is taken off all samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np

from hpcule.config.digest import digest
from hpcule.config.errors import UsageError
from hpcule.config.ranges import setting
from hpcule.data.source import Ids, Labels, Samples
from hpcule.evaluation.bench import Bench
from hpcule.measure.strip import WAYS, Strip, Way
from hpcule.probes.documents import StripDocument, StripSettings
from hpcule.probes.networks import Networks, NetworksConfig
from hpcule.publish.carry import Publish
from hpcule.victim.kept import Kept
from hpcule.victim.published import BLOCK, Published
from hpcule.victim.training import train_victim
from hpcule.world.keyed import key, order


@dataclass(frozen=True, kw_only=True)
class StripConfig(NetworksConfig):
    """What the attacker has."""

    originals: int = setting(1, at_least=1)
    """Number of clean originals of every class that the attacker has next to their published copies."""


@dataclass(frozen=True)
class Stripped:
    """What one way of stripping leaves, and what a network learns from it.

    Attributes:
        residual: mean absolute difference from the originals, in levels, over the samples that the attacker did not
            have.
        last: accuracy in [0, 1] on clean test samples of a network trained on the stripped samples.
        train: its accuracy in training.
    """

    residual: float
    last: float
    train: float


def measure_strip(config: StripConfig, bench: Bench) -> StripDocument:
    """Train on clean, on protected and on stripped samples, and measure how much of the perturbation is left.

    Args:
        config: what the attacker has.
        bench: `networks` and `stripped` go to its folder.

    Returns:
        The content of results.json.

    Raises:
        DataError: there are no labels.
        StoreError: the store was made for other samples, or a file is damaged.
        UsageError: settings that the samples do not allow.
    """
    networks = Networks(config, 1, bench)
    known = known_originals(networks, config)
    trained = networks.train()
    names = [*networks.names.values(), config.originals]

    def perform(way: Way, number: int, count: int) -> Stripped:
        publish = stripped(networks, known, way)

        def progress(done: int, total: int) -> None:
            bench.report(f"network, stripped by {way}", number * total + done, count * total)

        residual = mean_residual(networks, publish, known)
        train = Published(bench.source, publish, ids=networks.data.ids, resident=networks.data.resident)
        last = train_victim(config.victim, train, networks.test, bench.world.alone(), config.seed, progress)[1].last
        return Stripped(residual, last.test, last.train)

    kept = Kept.of(bench.out / "stripped", Stripped)
    found = kept.complete({way: digest(names, way) for way in WAYS}, bench.world, perform)
    return {
        "kind": "strip",
        **networks.facts(trained),
        "settings": cast("StripSettings", networks.settings()),
        "known": len(known),
        "clean": {"last": trained["clean"].last},
        "protected": {
            "last": trained["protected"].last,
            "residual": mean_residual(networks, networks.publish("protected"), known),
        },
        "stripped": {way: {"last": one.last, "residual": one.residual} for way, one in found.items()},
    }


def known_originals(networks: Networks, config: StripConfig) -> Ids:
    """Ids of the attacker's originals, as many of every class, in rising order.

    Raises:
        UsageError: a class does not have more samples than that.
    """
    labels, ids = _labels(networks), networks.data.ids
    drawn = order(key(config.seed, "known originals"), ids)
    chosen = []
    for label in np.unique(labels[ids]):
        own = drawn[labels[drawn] == label]
        if len(own) <= config.originals:
            raise UsageError(f"originals={config.originals}: class {label} has {len(own)} samples; take fewer")
        chosen.append(own[: config.originals])
    return np.sort(np.concatenate(chosen))


def stripped(networks: Networks, known: Ids, way: Way) -> Publish:
    """What the attacker makes of published samples: each class's perturbation, as the known ones show it, taken off."""
    source, publish = networks.bench.source, networks.publish("protected")
    labels = _labels(networks)
    originals = source.read(known)
    copies = publish(known, originals)
    strips: dict[int, Strip] = {
        int(label): WAYS[way](copies[labels[known] == label], originals[labels[known] == label])
        for label in np.unique(labels[known])
    }

    def strip(ids: Ids, samples: Samples) -> Samples:
        published = publish(ids, samples)
        for label in np.unique(labels[ids]):
            own = labels[ids] == label
            levels = strips[int(label)](published[own].astype(np.float32))
            published[own] = np.clip(np.rint(levels), 0, source.levels)
        return published

    return strip


def mean_residual(networks: Networks, publish: Publish, known: Ids) -> float:
    """Mean absolute difference of published samples from their originals, in levels, without the known ones."""
    ids = np.setdiff1d(networks.data.ids, known, assume_unique=True)
    total = 0.0
    for start in range(0, len(ids), BLOCK):
        block = ids[start : start + BLOCK]
        clean = networks.bench.source.read(block)
        change = publish(block, clean.copy()).astype(np.int32) - clean.astype(np.int32)
        total += float(np.abs(change).mean(dtype=np.float64)) * len(block)
    return total / len(ids)


def _labels(networks: Networks) -> Labels:
    labels = networks.bench.source.labels
    assert labels is not None
    return labels
