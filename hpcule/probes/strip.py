"""Stripping a store: with a few originals of every class, the perturbation is taken off all samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np

from hpcule.config.digest import digest
from hpcule.config.errors import UsageError
from hpcule.config.ranges import setting
from hpcule.data.source import Ids, Labels, Samples
from hpcule.evaluation.bench import Bench
from hpcule.measure.strip import WAYS, Strip, Way
from hpcule.probes.documents import StripDocument, StrippedDocument, StripSettings
from hpcule.probes.networks import Networks, NetworksConfig
from hpcule.publish.carry import Publish
from hpcule.victim.kept import Kept
from hpcule.victim.published import BLOCK, Published
from hpcule.victim.training import train_victim
from hpcule.world.keyed import key, order

SAMPLES: Sequence[Literal["protected"] | Way] = ("protected", *WAYS)
"""Published samples, as they are and as each way of stripping leaves them."""


@dataclass(frozen=True, kw_only=True)
class StripConfig(NetworksConfig):
    """What the attacker has."""

    originals: int = setting(1, at_least=1)
    """Number of clean originals of every class that the attacker has next to their published copies."""


@dataclass(frozen=True)
class Left:
    """What is left of the perturbation, and what a network learns.

    Attributes:
        residual: mean absolute difference from the originals, in levels, over the samples that the attacker did not
            have.
        last: the headline measure on clean test samples of a network trained on these samples.
    """

    residual: float
    last: float


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
    items = {samples: digest(samples, names) for samples in SAMPLES}

    def perform(samples: Literal["protected"] | Way, number: int, count: int) -> Left:
        publish = networks.publish("protected") if samples == "protected" else stripped(networks, known, samples)
        train = Published(bench.source, publish, ids=networks.data.ids, resident=networks.data.resident)
        residual = mean_residual(train, known)
        if samples == "protected":
            return Left(residual, trained["protected"].last)

        def progress(done: int, total: int) -> None:
            bench.report(f"network, stripped by {samples}", number * total + done, count * total)

        alone = bench.world.alone()
        keeper = kept.keeper(items[samples], alone)
        result = train_victim(config.victim, train, networks.test, alone, config.seed, progress, keeper=keeper).result
        return Left(residual, networks.reached(result))

    kept = Kept.of(bench.out / "stripped", Left)
    found = kept.complete(items, bench.world, perform)
    left: dict[Literal["protected"] | Way, StrippedDocument] = {
        samples: {"last": one.last, "residual": one.residual} for samples, one in found.items()
    }
    return {
        "kind": "strip",
        **networks.facts(trained),
        "settings": cast("StripSettings", networks.settings()),
        "known": len(known),
        "clean": {"last": trained["clean"].last},
        "protected": left["protected"],
        "stripped": {way: left[way] for way in WAYS},
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


def mean_residual(samples: Published, known: Ids) -> float:
    """Mean absolute difference of samples from their originals, in levels, without the known ones."""
    numbers = np.flatnonzero(~np.isin(samples.ids, known))
    total = 0.0
    for start in range(0, len(numbers), BLOCK):
        block = numbers[start : start + BLOCK]
        changed, _ = samples.take(block)
        change = changed.numpy().astype(np.int32) - samples.source.read(samples.ids[block])
        total += float(np.abs(change).mean(dtype=np.float64)) * len(block)
    return total / len(numbers)


def _labels(networks: Networks) -> Labels:
    labels = networks.bench.source.labels
    assert labels is not None
    return labels
