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
from hpcule.victim.network import build_network
from hpcule.victim.published import Published
from hpcule.victim.training import of_length, train_victim, work

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
    config = VictimConfig(**SMALL, checkpoint=str(checkpoint), countermeasures=("grayscale", "linear-probe"))
    train, test = make_sets()
    network, result = train_victim(config, train, test, alone, 0, lambda done, total: told.append((done, total)))
    assert network is None
    assert result.last.train == 1.0
    assert result.last.test > 0.55
    assert told == [(1, 1)]
    assert work(config, 120, 61) == (0.0, 181)
    assert of_length(config, 3).countermeasures == ("grayscale", "linear-probe")
    again = train_victim(config, train, test, alone, 1)[1]
    assert again.curve == result.curve  # nothing of it is random


def test_all_of_a_trained_network_learns_on(alone, checkpoint):
    config = VictimConfig(**SMALL, checkpoint=str(checkpoint), learning_rate=0.01, countermeasures=("fine-tune",))
    train, test = make_sets()
    start = load_encoder("resnet18", checkpoint, input_size=32)
    network, result = train_victim(config, train, test, alone, 0)
    assert result.last.test > 0.5
    before = start.network.layer1[0].conv1.weight
    moved = network.encoder.network.layer1[0].conv1.weight.detach() - before
    assert 0 < float(moved.norm()) < float(before.norm()) / 2
    assert not torch.equal(network.encoder.network.bn1.running_mean, start.network.bn1.running_mean)
    assert train_victim(config, train, test, alone, 0)[1].curve == result.curve


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
    config = VictimConfig(**SMALL, checkpoint=str(checkpoint), countermeasures=("fine-tune",))
    network = build_network(config, source, 0, alone.device).eval()
    images = torch.from_numpy(source.read(np.arange(10))).float() / 255
    encoder = load_encoder("resnet18", checkpoint, input_size=32)
    with torch.no_grad():
        assert torch.allclose(network.features(images), encoder(images), atol=1e-5)
        assert network(images).shape == (10, 3)


def test_weights_that_cannot_be_had_are_named(alone, tmp_path, checkpoint):
    config = VictimConfig(**SMALL, checkpoint=str(tmp_path / "absent.pth"), countermeasures=("linear-probe",))
    with pytest.raises(DataError, match=r"absent\.pth: cannot be read"):
        train_victim(config, *make_sets(), alone, 0)
    other = dataclasses.replace(config, network="resnet50", checkpoint=str(checkpoint))
    with pytest.raises(DataError, match="not the weights of resnet50"):
        train_victim(other, *make_sets(), alone, 0)
    unknown = dataclasses.replace(config, network="resnet-tiny", countermeasures=("fine-tune",))
    with pytest.raises(UsageError, match="unknown encoder 'resnet-tiny'"):
        train_victim(unknown, *make_sets(), alone, 0)
