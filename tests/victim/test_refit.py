from __future__ import annotations

import numpy as np
import pytest
import torch
from toys import ToySource

from hpcule.config.errors import UsageError
from hpcule.victim.config import VictimConfig
from hpcule.victim.linear_layer import LinearLayer, all_features, probed
from hpcule.victim.published import Published
from hpcule.victim.supervised import train_network
from hpcule.victim.training import of_length, train_victim
from hpcule.victim.training_data import TrainingData

SETTINGS = {"network": "convnet", "epochs": 4, "batch": 50, "learning_rate": 0.05, "precision": "fp32"}


def make_data(n=240):
    return TrainingData(ToySource(n), np.arange(n, dtype=np.int64), 2**30)


def shortcut(ids, samples):
    """A corner whose brightness names the class, and nothing else but noise."""
    labels = ids % 3
    noise = np.random.default_rng(0).integers(100, 156, samples.shape).astype(np.uint8)
    noise[:, :, :4, :4] = (100 * labels)[:, None, None, None]
    return noise


def test_a_tenth_of_the_samples_stays_clean_for_the_last_layer():
    data = make_data()
    config = VictimConfig(**SETTINGS, countermeasures=("dfr-10",))
    settings, train, owned = data.training_set(config, "clean", None, "dfr-10", 3)
    assert (len(train), len(owned)) == (216, 24)
    assert sorted([*train.ids, *owned.ids]) == list(range(240))
    assert np.bincount(owned.labels).tolist() == [8, 8, 8]
    assert settings == config
    settings, part, none = data.training_set(config, "part", None, "dfr-10", 3)
    assert np.array_equal(part.ids, owned.ids)
    assert (settings.countermeasures, settings.steps, none) == ((), 4 * 5, None)


def test_the_last_layer_becomes_the_optimum_on_clean_samples(alone):
    data, test = make_data(), Published(ToySource(101, seed=1), resident=2**30)
    config = VictimConfig(**SETTINGS, countermeasures=("dfr-20",))
    train, owned = data.published(shortcut, "dfr-20", 0), data.owned("dfr-20", 0)
    network, result = train_victim(config, train, test, alone, 0, owned=owned)
    before, plain = train_network(VictimConfig(**SETTINGS), train, test, alone, 0)
    assert [point.test for point in result.curve[:-1]] == [point.test for point in plain.curve[:-1]]
    assert result.last.test > plain.last.test + 0.1
    fitted = probed(before.eval().features, owned, test, alone, fast=False)
    assert result.last.test == fitted[1]
    features, labels = all_features(network.features, test, alone, fast=False)
    assert float((network.linear(features).argmax(1) == labels).float().mean()) == pytest.approx(fitted[1])


def test_the_layer_bears_features_of_any_scale():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(90) % 3
    features = torch.randn(90, 5, generator=generator) + 4 * torch.nn.functional.one_hot(labels, 5)
    features = features * torch.tensor([1e-3, 1.0, 1e3, 0.0, 1.0]) + 7
    assert LinearLayer.fitted(features, labels, 3).accuracy(features, labels) > 0.95


def test_without_clean_samples_there_is_no_refit(alone):
    config = VictimConfig(**SETTINGS, countermeasures=("dfr-10",))
    train = Published(ToySource(60), resident=2**30)
    with pytest.raises(UsageError, match=r"dfr-10 needs clean samples .* only hpcule evaluate has them"):
        train_victim(config, train, train, alone, 0)
    assert of_length(config, 2).countermeasures == ()
