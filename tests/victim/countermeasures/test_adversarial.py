from __future__ import annotations

import numpy as np
import torch
from toys import ToySource

from hpcule.victim.batches import Batches
from hpcule.victim.config import VictimConfig
from hpcule.victim.countermeasures.adversarial import STEPS, attacked, build_adversary
from hpcule.victim.countermeasures.table import Countermeasures
from hpcule.victim.network import build_network
from hpcule.victim.published import Published

CPU = torch.device("cpu")


def test_the_adversary_raises_the_loss_within_its_radius():
    config = VictimConfig(network="convnet", countermeasures=Countermeasures.parse("adversarial-8"))
    source = ToySource(60)
    train = Published(source, resident=2**20)
    network = build_network(config, train, 0, CPU)
    mixed = Batches(config, train, 0, CPU).take(np.arange(40), 0, 0, 0.0)
    adversary = build_adversary(config, 0)
    moved = attacked(adversary, network, mixed, np.arange(40), 0)
    assert network.training
    network.eval()
    with torch.no_grad():
        before, gained = mixed.loss(network(mixed.images), train.task), mixed.loss(network(moved.images), train.task)
        gained -= before
        signs = torch.randn(mixed.images.shape, generator=torch.Generator().manual_seed(0)).sign()
        by_chance = mixed.loss(network((mixed.images + 8 / 255 * signs).clamp(0, 1)), train.task) - before
    assert gained > 3 * abs(by_chance)
    assert gained > 0
    distance = (moved.images - mixed.images).abs()
    assert distance.max() <= 8 / 255 + 1e-6
    # Ten steps of a quarter reach the border from anywhere.
    assert STEPS == 10
    assert (distance > 7.9 / 255).float().mean() > 0.5
    assert moved.images.min() >= 0
    assert moved.images.max() <= 1
    assert all(parameter.grad is None for parameter in network.parameters())


def test_every_version_of_a_sample_is_attacked():
    config = VictimConfig(network="convnet", countermeasures=Countermeasures.parse(("ueraser-max", "adversarial")))
    source = ToySource(60)
    train = Published(source, resident=2**20)
    network = build_network(config, train, 0, CPU)
    mixed = Batches(config, train, 0, CPU).take(np.arange(20), 0, 0, 0.0)
    moved = attacked(build_adversary(config, 0), network, mixed, np.arange(20), 0)
    assert moved.images.shape == (100, 3, 8, 8)
    assert ((moved.images != mixed.images).flatten(1).any(1)).all()


def test_other_recipes_have_no_adversary():
    assert build_adversary(VictimConfig(countermeasures=Countermeasures.parse(("jpeg-10", "mixup"))), 0) is None
