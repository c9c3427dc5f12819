from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from torch import nn
from torch.nn import functional

from hpcule.measure.sharpness import (
    Search,
    layers,
    learnable,
    sharpness,
    threshold,
    two_means,
    unlearnable_distance,
)
from hpcule.nets import build


def network():
    return build("resnet-tiny", channels=3, classes=3, size=(8, 8), seed=0)


def samples(n=40):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(n, 3, 8, 8, generator=generator), torch.randint(0, 3, (n,), generator=generator)


def test_convolutions_and_linear_maps_count():
    names = layers(network())
    assert names[-1] == "linear.weight"
    assert all(name.endswith(".weight") for name in names)
    assert len(names) == sum(isinstance(m, nn.Conv2d | nn.Linear) for m in network().modules())


def test_sharpness_leaves_the_network_as_it_was():
    net = network()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    value = sharpness(net, layers(net)[3], *samples(), Search(iterations=2))
    assert value > 0
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


def test_sharpness_of_a_linear_map_is_the_worst_move_of_its_weights():
    """Against every direction of a fine circle: two weights, and a ball that the search reaches the border of."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(1, 2, bias=False))
    with torch.no_grad():
        net[1].weight.copy_(torch.tensor([[1.0], [-0.5]]))
    images, labels = torch.tensor([1.0, 0.5, 2.0])[:, None, None, None], torch.tensor([0, 1, 1])
    start = net[1].weight.detach().flatten()

    def loss(weights):
        return functional.cross_entropy(images.flatten(1) @ weights[None], labels).item()

    radius = 0.3 * start.norm().item()
    angles = np.linspace(0, 2 * np.pi, 2000)
    moves = [loss(start + radius * torch.tensor([np.cos(a), np.sin(a)]).float()) - loss(start) for a in angles]
    found = sharpness(net, "1.weight", images, labels, Search(radius=0.3, iterations=50, learning_rate=0.1, batch=3))
    assert found == pytest.approx(max(abs(move) for move in moves), rel=1e-3)


def test_a_longer_search_never_finds_less():
    net = network()
    values = [sharpness(net, "linear.weight", *samples(), Search(iterations=n, batch=40)) for n in (1, 3, 6)]
    assert values == sorted(values)
    assert values[0] > 0


def test_two_means_are_the_best_of_all_cuts():
    rng = np.random.default_rng(0)
    for size in (2, 3, 9, 40):
        values = rng.gamma(1, 1, size)
        found = two_means(values.tolist())
        reference = KMeans(2, n_init=50, random_state=0).fit(values[:, None])
        assert found == pytest.approx(tuple(np.sort(reference.cluster_centers_.ravel())))
    best = min(
        (sum(np.var(part) * len(part) for part in (np.sort(values)[:k], np.sort(values)[k:])), k) for k in range(1, 40)
    )
    assert two_means(values.tolist())[0] == pytest.approx(np.sort(values)[: best[1]].mean())


def test_the_threshold_is_the_mean_of_the_probes_midpoints():
    clean = np.array([[0, 0.2, 1.0, 1.2], [0, 0, 3, 3]])
    assert threshold(clean) == pytest.approx(((0.1 + 1.1) / 2 + 1.5) / 2)


def test_a_training_is_at_distance_one_from_itself():
    clean = np.random.default_rng(0).gamma(1, 1, (3, 13))
    for weights in (np.ones(13), np.arange(1.0, 14)):
        assert unlearnable_distance(clean, clean, weights) == 1


def test_flat_layers_bring_the_distance_down_and_sharp_ones_up():
    clean = np.array([[0.0, 0.1, 1.0, 1.1]])
    ones = np.ones(4)
    assert unlearnable_distance(clean, np.zeros((2, 4)), ones) == 0
    assert unlearnable_distance(clean, np.full((1, 4), 5.0), ones) == 2
    assert learnable(clean, 0.5, np.array([1.0, 1, 10, 100])) == 110
    for order in itertools.permutations(range(4), 4):
        assert unlearnable_distance(clean[:, order], clean[:, order], ones) == 1
