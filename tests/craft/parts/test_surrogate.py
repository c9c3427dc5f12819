from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional
from toys import ToySource, make_problem

from hpcule.craft.parts.surrogate import Surrogate, input_gradient, logits_of
from hpcule.data.schedule import Schedule
from hpcule.nets import build

CLASSES = 3


def make_network(norm=True, seed=0):
    torch.manual_seed(seed)
    norms = [nn.BatchNorm2d(6), nn.BatchNorm2d(5, momentum=0.3)] if norm else [nn.Identity(), nn.Identity()]
    layers = [nn.Conv2d(3, 6, 3, padding=1), norms[0], nn.ReLU(), nn.Conv2d(6, 5, 3, stride=2), norms[1], nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(45, CLASSES))


def make_surrogate(problem, network, **settings):
    settings = {"learning_rate": 1.0, "momentum": 0.0, "weight_decay": 0.0, "clip_norm": None, **settings}
    return Surrogate(network, problem, **settings)


def make_batches(problem, ghost=7, batch=21):
    cut = problem.partition
    return Schedule([cut.ids(shard) for shard in range(cut.count)], ghost, batch, 0, "test").epoch(0)


def loader(problem):
    def load(ghost):
        samples = problem.unit_interval(problem.reader.take(ghost.shard, ghost.ids))
        return samples, torch.from_numpy(problem.classes(ghost.ids))

    return load


def train_one(network, *, ghost=7, batch=21, **settings):
    """One step on one batch: the surrogate, and that batch's ghosts."""
    problem = make_problem(ToySource(60))
    surrogate = make_surrogate(problem, network, **settings)
    ghosts = make_batches(problem, ghost, batch)[0]
    surrogate.train(ghosts, loader(problem))
    return surrogate, ghosts


def test_without_batchnorm_the_gradient_is_that_of_one_big_batch():
    network = make_network(norm=False)
    reference = copy.deepcopy(network).double()
    before = [parameter.clone() for parameter in network.parameters()]
    surrogate, ghosts = train_one(network)
    assert [len(ghost.ids) for ghost in ghosts] == [5, 5, 5, 5, 1]
    ids = np.concatenate([ghost.ids for ghost in ghosts])
    source = surrogate.problem.source
    logits = reference(torch.from_numpy(source.samples[ids] / 255))
    functional.cross_entropy(logits, torch.from_numpy(source.labels[ids])).backward()
    for old, parameter, other in zip(before, network.parameters(), reference.parameters(), strict=True):
        # SGD with a rate of 1: the step is the gradient.
        torch.testing.assert_close((old - parameter).double(), other.grad, rtol=1e-4, atol=1e-6)


def slow_step(network, ghosts, source):
    """Torch's own running statistics, one ghost after the other; the gradient of the mean loss over the batch."""
    norms = {layer: layer.momentum for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)}
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    sizes = [len(ghost.ids) for ghost in ghosts]
    size = sum(sizes)
    for ghost, own in zip(ghosts, sizes, strict=True):
        network.train(own > 1)
        for layer, momentum in norms.items():
            layer.momentum = momentum * own / max(sizes)
        inputs = torch.from_numpy(source.samples[ghost.ids] / 255)
        logits = functional_call(network, before, inputs) if own == 1 else network(inputs)
        loss = functional.cross_entropy(logits, torch.from_numpy(source.labels[ghost.ids]), reduction="sum") / size
        loss.backward()
    for layer, momentum in norms.items():
        layer.momentum = momentum


@pytest.mark.parametrize(("batch", "sizes"), [(20, [5] * 4), (21, [5, 5, 5, 5, 1]), (23, [5, 5, 5, 5, 3])])
def test_batchnorm_over_ghosts_equals_a_slow_reference(batch, sizes):
    network = make_network()
    reference = copy.deepcopy(network).double()
    before = [parameter.clone() for parameter in network.parameters()]
    surrogate, ghosts = train_one(network, batch=batch)
    assert [len(ghost.ids) for ghost in ghosts] == sizes
    slow_step(reference, ghosts, surrogate.problem.source)
    for old, parameter, other in zip(before, network.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close((old - parameter).double(), other.grad, rtol=1e-3, atol=1e-5)
    for layer in (1, 4):
        for name in ("running_mean", "running_var"):
            found, expected = getattr(network[layer], name), getattr(reference[layer], name)
            torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)
            start = 0.0 if name == "running_mean" else 1.0
            assert (expected - start).abs().min() > 1e-4
        assert network[layer].momentum == reference[layer].momentum


def test_running_statistics_follow_the_order_of_the_ghosts():
    problem = make_problem(ToySource(60))
    statistics = []
    for order in (1, -1):
        network = make_network()
        make_surrogate(problem, network).train(make_batches(problem)[0][::order], loader(problem))
        statistics.append(network[1].running_mean)
    assert (statistics[0] != statistics[1]).any()


def test_the_norms_of_a_step_are_those_of_its_ghosts_before_clipping():
    problem, network = make_problem(ToySource(60)), make_network()
    reference = copy.deepcopy(network)
    ghosts = make_batches(problem, ghost=6, batch=22)[0]
    norms = make_surrogate(problem, network, clip_norm=1e-3).train(ghosts, loader(problem))
    sizes, squares, mean = [len(ghost.ids) for ghost in ghosts], [], 0.0
    reference.train()
    for ghost in ghosts:
        inputs, labels = loader(problem)(ghost)
        loss = functional.cross_entropy(reference(inputs), labels)
        gradient = torch.cat([part.flatten() for part in torch.autograd.grad(loss, list(reference.parameters()))])
        squares.append(float(gradient.square().sum()))
        mean = mean + gradient * len(ghost.ids) / sum(sizes)
    assert len(set(sizes)) > 1
    assert (norms.groups, norms.samples) == (len(ghosts), sum(sizes))
    assert norms.weighted_squares == pytest.approx(np.dot(sizes, squares), rel=1e-4)
    assert norms.squared_norm == pytest.approx(float(mean.square().sum()), rel=1e-4)


def test_the_gradient_is_clipped_as_a_whole():
    before = make_network()
    network = make_network()
    train_one(network, clip_norm=1e-3)
    pairs = zip(before.parameters(), network.parameters(), strict=True)
    moved = torch.cat([(old - new).flatten() for old, new in pairs])
    assert moved.norm().item() == pytest.approx(1e-3, rel=1e-2)


def test_momentum_and_weight_decay_are_torchs():
    problem = make_problem(ToySource(60))
    network = make_network(norm=False)
    reference = copy.deepcopy(network)
    settings = {"learning_rate": 0.1, "momentum": 0.9, "weight_decay": 0.1}
    surrogate = make_surrogate(problem, network, **settings)
    optimizer = torch.optim.SGD(reference.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    source = problem.source
    for ghosts in make_batches(problem)[:3]:
        surrogate.train(ghosts, loader(problem))
        ids = np.concatenate([ghost.ids for ghost in ghosts])
        logits = reference(torch.from_numpy(source.samples[ids]).float() / 255)
        optimizer.zero_grad()
        functional.cross_entropy(logits, torch.from_numpy(source.labels[ids])).backward()
        optimizer.step()
    for parameter, other in zip(network.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(parameter, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["convnet", "resnet-tiny"])
def test_a_frozen_copy_equals_evaluation(name):
    network = build(name, channels=3, classes=CLASSES, size=(8, 8), seed=0)
    surrogate, _ = train_one(network, learning_rate=0.1)
    frozen = surrogate.frozen()
    inputs = torch.rand(9, 3, 8, 8)
    with torch.no_grad():
        expected = network.eval()(inputs)
        torch.testing.assert_close(logits_of(frozen, inputs), expected, rtol=1e-4, atol=1e-4)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in frozen.modules())
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
    assert all(parameter.requires_grad for parameter in network.parameters())
    surrogate.train(make_batches(surrogate.problem)[1], loader(surrogate.problem))
    assert network.training
    with torch.no_grad():
        torch.testing.assert_close(logits_of(frozen, inputs), expected, rtol=1e-4, atol=1e-4)


def test_a_frozen_copy_may_compute_in_bf16():
    problem = make_problem(ToySource(60), autocast=True)
    surrogate = make_surrogate(problem, make_network())
    surrogate.train(make_batches(problem)[0], loader(problem))
    assert all(parameter.dtype == torch.float32 for parameter in surrogate.network.parameters())
    frozen = surrogate.frozen()
    assert all(parameter.dtype == torch.bfloat16 for parameter in frozen.parameters())
    inputs = torch.rand(4, 3, 8, 8)
    logits = logits_of(frozen, inputs)
    assert logits.dtype == torch.float32
    with torch.no_grad():
        torch.testing.assert_close(logits, surrogate.network.eval()(inputs), rtol=0.05, atol=0.05)


def test_the_input_gradient_is_autograds():
    frozen = make_network(norm=False).requires_grad_(False)
    inputs, targets = torch.rand(5, 3, 8, 8), torch.tensor([0, 1, 2, 0, 1])
    before = inputs.clone()
    gradient, logits = input_gradient(frozen, inputs, targets)
    leaf = inputs.clone().requires_grad_()
    functional.cross_entropy(frozen(leaf), targets, reduction="sum").backward()
    torch.testing.assert_close(gradient, leaf.grad, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(logits, frozen(inputs))
    assert (inputs == before).all()
    assert not inputs.requires_grad


def train_on(world, name, autocast):
    """An epoch of a network with BatchNorm: the bytes of its weights and statistics."""
    problem = make_problem(ToySource(61), world, shards=5, autocast=autocast)
    network = build(name, channels=3, classes=CLASSES, size=(8, 8), seed=0)
    surrogate = make_surrogate(problem, network, learning_rate=0.1, momentum=0.9, weight_decay=5e-4, clip_norm=5.0)
    batches = make_batches(problem, 6, 21)
    assert any(len(ghost.ids) == 1 for ghosts in batches for ghost in ghosts)
    for ghosts in batches:
        surrogate.train(ghosts, loader(problem))
    tensors = {key: value for key, value in network.state_dict().items() if value.is_floating_point()}
    return {key: value.contiguous().numpy().tobytes() for key, value in tensors.items()}


@pytest.mark.parametrize("autocast", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("name", ["convnet", "resnet-tiny"])
def test_two_ranks_and_one_train_the_same_bits(pool, alone, name, autocast):
    expected = train_on(alone, name, autocast)
    for found in pool.run(train_on, name, autocast):
        assert [key for key in expected if found[key] != expected[key]] == []


def train_without_norms(world):
    problem = make_problem(ToySource(60), world)
    network = make_network(norm=False)
    surrogate = make_surrogate(problem, network)
    surrogate.train(make_batches(problem)[0], loader(problem))
    return [parameter.detach().numpy().tobytes() for parameter in network.parameters()]


def test_a_network_without_batchnorm_trains_on_two_ranks(pool, alone):
    assert pool.run(train_without_norms) == [train_without_norms(alone)] * 2


def test_a_restored_surrogate_goes_on_alike():
    problem = make_problem(ToySource(60))
    batches = make_batches(problem)
    one = make_surrogate(problem, make_network(), momentum=0.9, learning_rate=0.1)
    one.train(batches[0], loader(problem))
    other = make_surrogate(problem, make_network(seed=5), momentum=0.9, learning_rate=0.1)
    other.restore(copy.deepcopy(one.state()))
    for surrogate in (one, other):
        surrogate.train(batches[1], loader(problem))
    for name, tensor in one.network.state_dict().items():
        assert (other.network.state_dict()[name] == tensor).all(), name
