"""Low-rank changes, compared with the network without them and with a product of their matrices."""

import torch
from torch import nn

from hpcule.nets.low_rank import SCALE, add_low_rank


def make_network():
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.Conv2d(16, 16, 3, groups=16), nn.Flatten(), nn.Linear(64, 10)
    return nn.Sequential(*layers).eval()


def test_nothing_changes_at_first_and_only_changes_learn():
    network, images = make_network(), torch.rand(2, 3, 6, 6)
    before = network(images)
    add_low_rank(network, 4)
    torch.testing.assert_close(network(images), before)
    learns = {name for name, tensor in network.named_parameters() if tensor.requires_grad}
    assert learns == {f"{layer}.parametrizations.weight.0.{part}" for layer in (0, 4) for part in ("up", "down")}


def test_a_layer_computes_with_the_sum():
    network = make_network()
    weight = network[4].weight.detach().clone()
    add_low_rank(network, 4)
    change = network[4].parametrizations.weight[0]
    nn.init.normal_(change.up)
    expected = weight + SCALE * torch.einsum("or,ri->oi", change.up, change.down)
    torch.testing.assert_close(network[4].weight, expected)
    assert torch.linalg.matrix_rank(network[4].weight - weight) == 4


def test_layers_without_a_larger_rank_stay():
    network = make_network()
    add_low_rank(network, 10)
    assert not hasattr(network[4], "parametrizations")
    assert not any(tensor.requires_grad for tensor in network[4].parameters())
