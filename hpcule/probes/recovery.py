"""The recovery attack on a store: a victim's network, some clean samples, and how far its weights may move."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import torch

from hpcule.config.digest import digest
from hpcule.config.ranges import setting
from hpcule.data.schedule import check_batch
from hpcule.evaluation.bench import Bench
from hpcule.measure.recovery import Batch, RecoveryState, recover
from hpcule.probes.documents import AttackDocument, Basis, RecoveredDocument, RecoveryDocument, RecoverySettings
from hpcule.probes.networks import BASES, Networks, NetworksConfig
from hpcule.victim.job import VictimJob
from hpcule.victim.keeper import Keeper
from hpcule.victim.kept import Kept
from hpcule.victim.published import Published
from hpcule.victim.training_schedule import TrainingSchedule
from hpcule.world.keyed import key, order

Attack = tuple[Basis, float] | Literal["scratch"]
"""What the network was trained on, and how far it may move; or a new network on the attacker's samples alone."""
SETTINGS = ("share", "epochs", "batch", "learning_rate", "clip_norm", "weight_decay")
"""Settings that all attacks depend on."""


@dataclass(frozen=True)
class Recovered:
    """The headline measure on clean test samples after an attack, and the L2 length by which the weights moved."""

    accuracy: float
    moved: float | None = None


@dataclass(frozen=True, kw_only=True)
class RecoveryConfig(NetworksConfig):
    """What the attacker has."""

    share: float = setting(0.2, above=0, below=1)
    """Share of every class that the attacker has as clean samples; the networks are trained on the others."""
    etas: tuple[float, ...] = setting((0.2, 0.5, 1.0, 2.0, 5.0), above=0)
    """L2 lengths that all weights together may move by; the authors go up to 2."""
    epochs: int = setting(60, at_least=1)
    batch: int = setting(128, at_least=1)
    learning_rate: float = setting(0.01, above=0)
    clip_norm: float = setting(5.0, above=0)
    weight_decay: float = setting(5e-4, at_least=0)

    def __post_init__(self) -> None:
        """Check ranges, and that there is a length."""
        super().__post_init__()
        if not self.etas:
            raise ValueError("etas=[]: at least one")


def measure_recovery(config: RecoveryConfig, bench: Bench) -> RecoveryDocument:
    """Train on protected and on clean samples, and let each network learn from withheld clean ones.

    Args:
        config: what the attacker has.
        bench: `networks` and `recovered` go to its folder.

    Returns:
        The content of results.json.

    Raises:
        DataError: there are no labels.
        StoreError: the store was made for other samples, or a file is damaged.
        UsageError: settings that the samples do not allow.
    """
    networks = Networks(config, 1, bench, withhold=config.share)
    check_batch("batch", config.batch, len(networks.withheld), RecoveryConfig.batch)
    trained = networks.train()
    settings = digest({name: getattr(config, name) for name in SETTINGS})
    attacks: list[Attack] = ["scratch", *((basis, eta) for basis in BASES for eta in config.etas)]
    names = list(networks.names.values())
    items = {attack: digest(names, settings, attack) for attack in attacks}
    withheld = Published(bench.source, ids=networks.withheld, resident=networks.data.resident)
    samples = networks.read(withheld).for_test(withheld)

    def perform(attack: Attack, number: int, count: int) -> Recovered:
        bench.report("recovery", number, count)
        keeper = kept.keeper(items[attack], bench.world.alone())
        if attack == "scratch":
            found = _from_scratch(config, networks, samples, keeper)
        else:
            found = _attack(config, networks, samples, *attack, keeper)
        bench.report("recovery", number + 1, count)
        return found

    kept = Kept.of(bench.out / "recovered", Recovered)
    found = kept.complete(items, bench.world, perform)

    def recovered(basis: Basis) -> RecoveredDocument:
        attacked = [_document(eta, found[basis, eta]) for eta in config.etas]
        return {"last": trained[basis].last, "recovered": attacked}

    return {
        "kind": "recover",
        **networks.facts(trained),
        "settings": cast("RecoverySettings", networks.settings()),
        "withheld": len(samples),
        "clean": recovered("clean"),
        "protected": recovered("protected"),
        "scratch": found["scratch"].accuracy,
    }


def _document(eta: float, found: Recovered) -> AttackDocument:
    assert found.moved is not None, "all but a new network have moved"
    return {"eta": eta, "accuracy": found.accuracy, "moved": found.moved}


def _from_scratch(config: RecoveryConfig, networks: Networks, samples: Published, keeper: Keeper) -> Recovered:
    """A new network by the victim's recipe, for as many steps as the others took, in batches no larger than what the
    attacker has."""
    steps = TrainingSchedule.of(config.victim, len(networks.data.ids)).total
    victim = dataclasses.replace(config.victim, steps=steps, batch=min(config.victim.batch, len(samples)))
    own = dataclasses.replace(networks.data, ids=samples.ids)
    job, alone = VictimJob(victim, "clean", config.seed), networks.bench.world.alone()
    return Recovered(networks.reached(job.train(own, None, networks.test, alone, keeper=keeper).result))


def _attack(
    config: RecoveryConfig, networks: Networks, samples: Published, basis: Basis, eta: float, keeper: Keeper
) -> Recovered:
    network, device = networks.load(basis, networks.epochs[-1]), networks.bench.world.device

    def batches(epoch: int) -> Iterator[Batch]:
        numbers = order(key(config.seed, "recovery", epoch), np.arange(len(samples), dtype=np.int64))
        for start in range(0, len(samples), config.batch):
            images, labels = samples.images(numbers[start : start + config.batch], device)
            yield images.contiguous(memory_format=torch.channels_last), labels

    with keeper.listening():
        moved = recover(
            network,
            batches,
            radius=eta,
            epochs=config.epochs,
            steps_an_epoch=-(-len(samples) // config.batch),
            learning_rate=config.learning_rate,
            clip_norm=config.clip_norm,
            weight_decay=config.weight_decay,
            saved=cast("RecoveryState | None", keeper.saved()),
            after_step=keeper.ask,
        )
    return Recovered(networks.measure(network), moved)
