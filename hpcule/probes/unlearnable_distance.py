"""The Unlearnable Distance of a store: the sharpness of layers after training on protected and on clean samples."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Literal, cast

import numpy as np
import torch

from hpcule.config.digest import digest
from hpcule.config.ranges import setting
from hpcule.config.tree import to_tree
from hpcule.data.schedule import check_batch
from hpcule.data.source import Ids, Labels
from hpcule.evaluation.bench import Bench
from hpcule.measure.sharpness import Search, Values, layers, learnable, sharpness, threshold, unlearnable_distance
from hpcule.probes.documents import Basis, DistanceDocument, DistanceSettings, SharpnessDocument
from hpcule.probes.networks import BASES, Networks, NetworksConfig, TrainedNetwork
from hpcule.victim.config import VictimConfig
from hpcule.victim.countermeasures.table import Countermeasures
from hpcule.victim.kept import Kept
from hpcule.world.keyed import key, order

Item = tuple[Basis, int, str]
"""A network's basis, an epoch, and the name of a layer's weights."""


@dataclass(frozen=True)
class LayerSharpness:
    """Sharpness of one layer of one network after one epoch, and the seconds that it took."""

    sharpness: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class DistanceConfig(NetworksConfig):
    """What is trained, and how its layers are probed."""

    victim: VictimConfig = field(
        default_factory=lambda: VictimConfig(countermeasures=Countermeasures.parse("crop-flip"))
    )
    probes: int = setting(3, at_least=1)
    """Epochs after which layers are probed, evenly spread, the last among them; the authors probe after each."""
    probe_samples: int = setting(256, at_least=1)
    """Number of training samples that the loss is taken over, as published and without augmentation, balanced over the
    classes; the authors take all of them."""
    radius: float = setting(0.05, above=0)
    """Longest move of a layer's weights, as a share of their length."""
    iterations: int = setting(10, at_least=1)
    """Passes over the probe, up and down each."""
    learning_rate: float = setting(0.1, above=0)
    """Learning rate of the plain gradient steps that search for the sharpest move."""
    batch: int = setting(64, at_least=1)
    """Number of probe samples that a gradient step takes."""
    count: Literal["layers", "parameters"] = "layers"
    """What is counted above the threshold: layers, as the authors' program does, or their parameters, as they write."""


def measure_distance(config: DistanceConfig, bench: Bench) -> DistanceDocument:
    """Train on protected and on clean samples, probe every layer of both, and compare.

    Args:
        config: what is trained and probed.
        bench: `networks` and `layers` go to its folder.

    Returns:
        The content of results.json.

    Raises:
        DataError: there are no labels.
        StoreError: the store was made for other samples, or a file is damaged.
        UsageError: settings that the samples do not allow.
    """
    networks = Networks(config, config.probes, bench)
    check_batch("batch", config.batch, min(config.probe_samples, len(networks.data.ids)), DistanceConfig.batch)
    trained = networks.train()
    network = networks.load("clean", networks.epochs[0])
    names = layers(network)
    found = _probe(config, networks, names)
    values = {
        basis: np.array([[found[basis, epoch, name].sharpness for name in names] for epoch in networks.epochs])
        for basis in BASES
    }
    sizes = [network.get_parameter(name).numel() for name in names]
    weights = np.ones(len(names)) if config.count == "layers" else np.array(sizes, np.float64)
    return {
        "kind": "distance",
        **networks.facts(trained),
        "settings": cast("DistanceSettings", networks.settings()),
        "distance": unlearnable_distance(values["clean"], values["protected"], weights),
        "threshold": threshold(values["clean"]),
        "epochs": networks.epochs,
        "layers": [{"name": name, "parameters": size} for name, size in zip(names, sizes, strict=True)],
        "probe_samples": min(config.probe_samples, len(networks.data.ids)),
        "training_seconds": round(sum(trained[basis].seconds for basis in BASES), 1),
        "probing_seconds": round(sum(item.seconds for item in found.values()), 1),
        "clean": _sharpness(trained, values, "clean", weights),
        "protected": _sharpness(trained, values, "protected", weights),
    }


def _sharpness(
    trained: Mapping[Basis, TrainedNetwork], values: Mapping[Basis, Values], basis: Basis, weights: Values
) -> SharpnessDocument:
    return {
        "last": trained[basis].last,
        "train": trained[basis].train,
        "learnable": learnable(values[basis], threshold(values["clean"]), weights),
        "sharpness": values[basis].tolist(),
    }


def _probe(config: DistanceConfig, networks: Networks, names: list[str]) -> dict[Item, LayerSharpness]:
    """Sharpness of every layer, at every probed epoch, of both networks."""
    bench, data = networks.bench, networks.data
    assert data.source.labels is not None
    search = Search(config.radius, config.iterations, config.learning_rate, config.batch)
    ids = probe_ids(data.ids, data.source.classes(data.ids), config.probe_samples)
    how = digest(to_tree(search), ids.tolist())
    items: dict[Item, str] = {
        (basis, epoch, name): f"{networks.names[basis]}-{how}-{epoch:04}-{name}"
        for basis in BASES
        for epoch in networks.epochs
        for name in names
    }

    @cache
    def samples(basis: Basis) -> tuple[torch.Tensor, torch.Tensor]:
        published = networks.published(basis, ids)
        probe = networks.read(published).train
        return probe.images(np.arange(len(ids), dtype=np.int64), bench.world.device)

    def measure(item: Item, number: int, count: int) -> LayerSharpness:
        basis, epoch, name = item
        bench.report("layers", number, count)
        start = time.perf_counter()
        value = sharpness(networks.load(basis, epoch), name, *samples(basis), search)
        bench.report("layers", number + 1, count)
        return LayerSharpness(value, time.perf_counter() - start)

    return Kept.of(bench.out / "layers", LayerSharpness).complete(items, bench.world, measure)


def probe_ids(ids: Ids, labels: Labels, count: int) -> Ids:
    """Choose `count` of the ids, or all if there are fewer, balanced over the classes, and always the same ones."""
    places = order(key(0, "probe"), np.arange(len(ids), dtype=np.int64))
    own = labels[places]
    # The n-th sample of every class comes before the n+1-th of any.
    turn = np.empty(len(own), np.int64)
    for label in np.unique(own):
        chosen = own == label
        turn[chosen] = np.arange(chosen.sum())
    return np.sort(ids[places[np.argsort(turn, kind="stable")[:count]]])
