"""Networks on disk: what they answer when they are asked again."""

from __future__ import annotations

import pytest
import toys
from toys import ToySource, make_store, toy_bench

from hpcule.config.errors import UsageError
from hpcule.probes.networks import Networks, NetworksConfig
from hpcule.victim.config import VictimConfig
from hpcule.victim.countermeasures.table import Countermeasures
from hpcule.victim.testing import recognised


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
        assert recognised(network, networks.read_test, alone.device, fast=False) / 60 == reached.last


def test_steps_that_are_fitted_to_each_training_set_are_refused(alone, tmp_path):
    store = make_store(tmp_path / "store", ToySource(120), alone)
    victim = VictimConfig(countermeasures=Countermeasures.parse("jpeg-50+notch"))
    with pytest.raises(UsageError, match=r"victim\.countermeasures=notch: .* fitted to the training set of each"):
        Networks(NetworksConfig(victim=victim), 1, toy_bench(store, tmp_path / "out", alone))


def test_another_task_than_one_label_is_refused(alone, tmp_path):
    store = make_store(tmp_path / "store", ToySource(120), alone)
    with pytest.raises(UsageError, match=r"victim\.task=rotation: .* are for one label: leave it out"):
        Networks(NetworksConfig(victim=VictimConfig(task="rotation")), 1, toy_bench(store, tmp_path / "out", alone))
