"""Networks on disk: what they answer when they are asked again."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
import toys
from toys import ToySource, make_store, toy_bench

from hpcule.config.errors import UsageError
from hpcule.probes.networks import Networks, NetworksConfig
from hpcule.victim.config import VictimConfig
from hpcule.victim.countermeasures.table import Countermeasures
from hpcule.victim.testing import answers


def test_a_network_is_asked_again_about_samples_as_it_was_tested_on_them(tmp_path):
    steps = Countermeasures.parse("bit-depth-1+size-16+test-too")
    victim = VictimConfig(
        network="convnet", epochs=3, batch=24, learning_rate=0.05, precision="fp32", countermeasures=steps
    )
    alone = toys.alone()
    store = make_store(tmp_path / "store", ToySource(120), alone)
    networks = Networks(NetworksConfig(victim=victim), 1, toy_bench(store, tmp_path / "out", alone))
    trained = networks.train()
    assert networks.read_test.shape == (3, 16, 16)
    for basis, reached in trained.items():
        network = networks.load(basis, networks.epochs[-1])
        assert networks.measure(network) == reached.last


def test_networks_are_judged_by_balanced_accuracy_where_accuracy_flatters(tmp_path, alone):
    victim = VictimConfig(network="convnet", epochs=3, batch=24, learning_rate=0.05, precision="fp32")
    store = make_store(tmp_path / "store", ToySource(120), alone)
    bench = toy_bench(store, tmp_path / "out", alone)
    equal = Networks(NetworksConfig(victim=victim), 1, bench)
    assert (equal.headline.measure, equal.headline.chance) == ("accuracy", pytest.approx(1 / 3))
    few = np.r_[np.arange(0, 60, 3), 1, 2, 4]  # twenty samples of the first class, two of the second, one of the third
    test = ToySource(60, seed=1)
    test.samples, test.labels = test.samples[few], test.labels[few]
    unequal = dataclasses.replace(bench, test=test)
    networks = Networks(NetworksConfig(victim=victim), 1, unequal)
    assert set(networks.names.values()).isdisjoint(equal.names.values())
    trained = networks.train()
    facts = networks.facts(trained)
    assert (facts["measure"], facts["data"]["chance"]) == ("balanced accuracy", pytest.approx(1 / 3))
    assert facts["effective"] == pytest.approx(9 / (1 / 20 + 1 / 2 + 1))
    network, labels = networks.load("protected", networks.epochs[-1]), unequal.test.labels
    asked = answers(network, networks.read_test, np.arange(len(labels)), alone.device, fast=False)
    right = torch.cat([logits for logits, _ in asked]).argmax(1).numpy() == labels
    expected = np.mean([right[labels == label].mean() for label in range(3)])
    assert trained["protected"].last == networks.measure(network) == pytest.approx(expected)
    assert expected != pytest.approx(right.mean())


def test_steps_that_are_fitted_to_each_training_set_are_refused(alone, tmp_path):
    store = make_store(tmp_path / "store", ToySource(120), alone)
    victim = VictimConfig(countermeasures=Countermeasures.parse("jpeg-50+notch"))
    with pytest.raises(UsageError, match=r"victim\.countermeasures=notch: .* fitted to the training set of each"):
        Networks(NetworksConfig(victim=victim), 1, toy_bench(store, tmp_path / "out", alone))


def test_another_task_than_one_label_is_refused(alone, tmp_path):
    store = make_store(tmp_path / "store", ToySource(120), alone)
    with pytest.raises(UsageError, match=r"victim\.task=rotation: .* are for one label: leave it out"):
        Networks(NetworksConfig(victim=VictimConfig(task="rotation")), 1, toy_bench(store, tmp_path / "out", alone))
