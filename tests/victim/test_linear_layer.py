from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn
from toys import ToySource

from hpcule.config.errors import DataError, UsageError
from hpcule.nets.encoder import load_encoder
from hpcule.nets.pretrained import ARCHITECTURES
from hpcule.nets.seeded import seeded_weights
from hpcule.nets.transferred import Transferred
from hpcule.victim.config import VictimConfig
from hpcule.victim.countermeasures.table import Countermeasures
from hpcule.victim.linear_layer import LinearLayer, all_features, probed
from hpcule.victim.network import build_network
from hpcule.victim.published import Published
from hpcule.victim.supervised import train_network
from hpcule.victim.training import of_length, train_victim, work
from hpcule.victim.training_data import TrainingData

SMALL = {"network": "resnet18", "input_size": 32, "batch": 50, "epochs": 2, "precision": "fp32"}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Weights of torchvision's ResNet-18, as somebody saves them."""
    with seeded_weights(5):
        network = ARCHITECTURES["resnet18"].build(224)
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(network.state_dict(), path)
    return path


def make_sets(contrast=0.25):
    return tuple(
        Published(ToySource(n, contrast=contrast, seed=seed), resident=2**30) for n, seed in ((120, 0), (61, 1))
    )


def test_a_linear_layer_learns_on_trained_features(alone, checkpoint):
    told = []
    config = VictimConfig(
        **SMALL, checkpoint=str(checkpoint), countermeasures=Countermeasures.parse(("grayscale", "linear-probe"))
    )
    train, test = make_sets()
    network, result, _ = train_victim(config, train, test, alone, 0, lambda done, total: told.append((done, total)))
    assert network is None
    assert result.last.train == 1.0
    assert result.last.test > 0.55
    assert told == [(1, 1)]
    assert work(config, 120, 61) == (0.0, 181)
    assert of_length(config, 3).countermeasures == config.countermeasures
    again = train_victim(config, train, test, alone, 1).result
    assert again.curve == result.curve  # nothing of it is random


def test_frozen_tensors_stay_and_the_others_learn(alone, checkpoint):
    steps = Countermeasures.parse("fine-tune+freeze-30")
    config = VictimConfig(**{**SMALL, "epochs": 1}, checkpoint=str(checkpoint), countermeasures=steps)
    network = train_victim(config, *make_sets(), alone, 0).network
    start = load_encoder("resnet18", checkpoint, input_size=32)
    pairs = list(zip(start.parameters(), network.encoder.parameters(), strict=True))
    stays = [torch.equal(before, after) for before, after in pairs]
    assert stays == [number < round(0.3 * len(pairs)) for number in range(len(pairs))]
    assert torch.equal(network.encoder.network.bn1.running_mean, start.network.bn1.running_mean)
    last = network.encoder.network.layer4[1].bn2
    assert not torch.equal(last.running_mean, start.network.layer4[1].bn2.running_mean)


@pytest.mark.slow
def test_adapters_learn_and_the_network_stays(alone, checkpoint):
    steps = Countermeasures.parse("fine-tune+adapters-4")
    settings = {**SMALL, "epochs": 6}
    config = VictimConfig(**settings, checkpoint=str(checkpoint), learning_rate=0.05, countermeasures=steps)
    train, test = make_sets()
    victim = train_victim(config, train, test, alone, 0)
    start = load_encoder("resnet18", checkpoint, input_size=32)
    kept = {
        name.replace(".parametrizations.weight.original", ".weight"): value
        for name, value in victim.network.encoder.state_dict().items()
    }
    for name, value in start.state_dict().items():
        assert torch.equal(value, kept[name]), name
    before, layer = start.network.layer4[1].conv2.weight, victim.network.encoder.network.layer4[1].conv2
    change = (layer.weight - before).detach().flatten(1)
    assert 0 < float(change.norm()) < float(before.norm())
    assert int(torch.linalg.matrix_rank(change)) <= 4
    assert victim.result.last.test > 0.5
    assert train_victim(config, train, test, alone, 0).result.curve == victim.result.curve


@pytest.mark.slow
def test_all_of_a_trained_network_learns_on(alone, checkpoint):
    config = VictimConfig(
        **SMALL, checkpoint=str(checkpoint), learning_rate=0.01, countermeasures=Countermeasures.parse("fine-tune")
    )
    train, test = make_sets()
    start = load_encoder("resnet18", checkpoint, input_size=32)
    network, result, _ = train_victim(config, train, test, alone, 0)
    assert result.last.test > 0.5
    before = start.network.layer1[0].conv1.weight
    moved = network.encoder.network.layer1[0].conv1.weight.detach() - before
    assert 0 < float(moved.norm()) < float(before.norm()) / 2
    assert not torch.equal(network.encoder.network.bn1.running_mean, start.network.bn1.running_mean)
    assert train_victim(config, train, test, alone, 0).result.curve == result.curve


def test_only_batch_norms_are_in_training_mode(checkpoint):
    encoder = load_encoder("resnet18", checkpoint, input_size=32)
    encoder.network.dropout = nn.Dropout()
    network = Transferred(encoder, 3, 0)
    modes = {type(module): module.training for module in network.encoder.modules()}
    assert modes[nn.BatchNorm2d]
    assert not modes[nn.Dropout]
    assert not network.eval().encoder.network.bn1.training
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_the_first_answers_are_those_of_the_checkpoint_with_a_new_layer(alone, checkpoint):
    source = ToySource(10)
    config = VictimConfig(**SMALL, checkpoint=str(checkpoint), countermeasures=Countermeasures.parse("fine-tune"))
    network = build_network(config, Published(source, resident=0), 0, alone.device).eval()
    images = torch.from_numpy(source.read(np.arange(10))).float() / 255
    encoder = load_encoder("resnet18", checkpoint, input_size=32)
    with torch.no_grad():
        assert torch.allclose(network.features(images), encoder(images), atol=1e-5)
        assert network(images).shape == (10, 3)


def test_weights_that_cannot_be_had_are_named(alone, tmp_path, checkpoint):
    config = VictimConfig(
        **SMALL, checkpoint=str(tmp_path / "absent.pth"), countermeasures=Countermeasures.parse("linear-probe")
    )
    with pytest.raises(DataError, match=r"absent\.pth: cannot be read"):
        train_victim(config, *make_sets(), alone, 0)
    other = dataclasses.replace(config, network="resnet50", checkpoint=str(checkpoint))
    with pytest.raises(DataError, match="not the weights of resnet50"):
        train_victim(other, *make_sets(), alone, 0)
    unknown = dataclasses.replace(config, network="resnet-tiny", countermeasures=Countermeasures.parse("fine-tune"))
    with pytest.raises(UsageError, match="unknown encoder 'resnet-tiny'"):
        train_victim(unknown, *make_sets(), alone, 0)


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
    config = VictimConfig(**SETTINGS, countermeasures=Countermeasures.parse("dfr-10"))
    settings, train, owned = data.training_set(config, "clean", None, 3)
    assert (len(train), len(owned)) == (216, 24)
    assert sorted([*train.ids, *owned.ids]) == list(range(240))
    assert np.bincount(owned.labels).tolist() == [8, 8, 8]
    assert settings == config
    settings, part, none = data.training_set(config, "part", None, 3)
    assert np.array_equal(part.ids, owned.ids)
    assert (settings.countermeasures.steps, settings.steps, none) == ((), 4 * 5, None)


def test_the_last_layer_becomes_the_optimum_on_clean_samples(alone):
    data, test = make_data(), Published(ToySource(101, seed=1), resident=2**30)
    config = VictimConfig(**SETTINGS, countermeasures=Countermeasures.parse("dfr-20"))
    train, owned = data.published(shortcut, config, 0), data.owned(config, 0)
    network, result, _ = train_victim(config, train, test, alone, 0, owned=owned)
    before, plain = train_network(VictimConfig(**SETTINGS), train, test, alone, 0)
    assert [point.test for point in result.curve[:-1]] == [point.test for point in plain.curve[:-1]]
    assert result.last.test > plain.last.test + 0.1
    fitted = probed(1, before.eval().features, owned, test, alone, fast=False)
    assert result.last.test == fitted.test
    features, labels = all_features(network.features, test, alone, fast=False)
    assert float((network.linear(features).argmax(1) == labels).float().mean()) == pytest.approx(fitted.test)


def test_the_layer_bears_features_of_any_scale():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(90) % 3
    features = torch.randn(90, 5, generator=generator) + 4 * torch.nn.functional.one_hot(labels, 5)
    features = features * torch.tensor([1e-3, 1.0, 1e3, 0.0, 1.0]) + 7
    assert LinearLayer.fitted(features, labels, 3).accuracy(features, labels) > 0.95


def test_without_clean_samples_there_is_no_refit(alone):
    config = VictimConfig(**SETTINGS, countermeasures=Countermeasures.parse("dfr-10"))
    train = Published(ToySource(60), resident=2**30)
    with pytest.raises(UsageError, match=r"dfr-10 needs clean samples, and none are withheld here"):
        train_victim(config, train, train, alone, 0)
    assert of_length(config, 2).countermeasures.steps == ()
