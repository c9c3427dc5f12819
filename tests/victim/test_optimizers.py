import io
import math

import numpy as np
import pytest
import torch

from hpcule.nets import build
from hpcule.victim.config import VictimConfig
from hpcule.victim.optimizers import LAMB, LARS, AveragedSGD, build_optimizer

RATES = [0.5, 0.2, 0.1]


def make_tensors():
    """Weights of a matrix, of a vector and of zeros, and their gradients at three steps."""
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=(3, 4)), rng.normal(size=5), np.zeros((2, 2))]
    return weights, [[rng.normal(size=tensor.shape) for tensor in weights] for _ in RATES]


def norm(tensor):
    return math.sqrt(sum(value * value for value in tensor.ravel().tolist()))


def slow_lars(weights, gradient, state, rate, *, decay, adapt, momentum=0.8, trust=0.01):
    velocity = state.setdefault("velocity", np.zeros_like(weights))
    local = 1.0
    if adapt and norm(weights) > 0:
        local = trust * norm(weights) / (norm(gradient) + decay * norm(weights))
    velocity[...] = momentum * velocity + rate * local * (gradient + decay * weights)
    return weights - velocity


def slow_lamb(weights, gradient, state, rate, *, decay, adapt, beta1=0.7, beta2=0.95, eps=1e-3):
    m, v = state.get("m", 0.0), state.get("v", 0.0)
    t = state["t"] = state.get("t", 0) + 1
    m = state["m"] = beta1 * m + (1 - beta1) * gradient
    v = state["v"] = beta2 * v + (1 - beta2) * gradient**2
    update = (m / (1 - beta1**t)) / (np.sqrt(v / (1 - beta2**t)) + eps) + decay * weights
    ratio = norm(weights) / norm(update) if adapt and norm(weights) > 0 else 1.0
    return weights - rate * ratio * update


def make_optimizer(cls, parameters):
    groups = [
        {"params": parameters[::2], "weight_decay": 0.1, "adapt": True},
        {"params": parameters[1::2], "weight_decay": 0.0, "adapt": False},
    ]
    settings = {"momentum": 0.8, "trust": 0.01} if cls is LARS else {"betas": (0.7, 0.95), "eps": 1e-3}
    return cls(groups, lr=1.0, **settings)


def walk(optimizer, parameters, gradients, rates):
    for rate, step in zip(rates, gradients, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = rate
        for parameter, gradient in zip(parameters, step, strict=True):
            parameter.grad = torch.from_numpy(gradient)
        optimizer.step()


@pytest.mark.parametrize(("cls", "slow"), [(LARS, slow_lars), (LAMB, slow_lamb)])
def test_steps_are_those_of_the_paper(cls, slow):
    weights, gradients = make_tensors()
    parameters = [torch.nn.Parameter(torch.from_numpy(tensor.copy())) for tensor in weights]
    walk(make_optimizer(cls, parameters), parameters, gradients, RATES)
    for number, parameter in enumerate(parameters):
        expected, state = weights[number], {}
        adapted = number % 2 == 0
        for rate, step in zip(RATES, gradients, strict=True):
            expected = slow(expected, step[number], state, rate, decay=0.1 if adapted else 0.0, adapt=adapted)
        np.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("cls", [LARS, LAMB])
def test_a_run_goes_on_from_its_state(cls):
    weights, gradients = make_tensors()
    parameters = [torch.nn.Parameter(torch.from_numpy(tensor.copy())) for tensor in weights]
    first = make_optimizer(cls, parameters)
    walk(first, parameters, gradients[:2], RATES[:2])
    copies = [torch.nn.Parameter(parameter.detach().clone()) for parameter in parameters]
    second = make_optimizer(cls, copies)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second.load_state_dict(torch.load(file, weights_only=True))
    walk(first, parameters, gradients[2:], RATES[2:])
    walk(second, copies, gradients[2:], RATES[2:])
    for one, other in zip(parameters, copies, strict=True):
        assert torch.equal(one, other)


def make_network():
    return build("resnet-tiny", channels=3, classes=4, size=(8, 8), seed=0)


@pytest.mark.parametrize(("name", "cls"), [("lars", LARS), ("lamb", LAMB)])
def test_biases_and_batch_norm_are_spared(name, cls):
    network = make_network()
    optimizer = build_optimizer(VictimConfig(optimizer=name, weight_decay=0.1), network)
    assert isinstance(optimizer, cls)
    spared = {id(p) for group in optimizer.param_groups if not group["adapt"] for p in group["params"]}
    expected = {
        id(parameter)
        for module in network.modules()
        for kind, parameter in module.named_parameters(recurse=False)
        if kind == "bias" or isinstance(module, torch.nn.BatchNorm2d)
    }
    assert spared == expected
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(network.parameters()))


def test_sgd_and_adam_are_torchs():
    settings = {"learning_rate": 0.3, "momentum": 0.7, "weight_decay": 0.01}
    sgd = build_optimizer(VictimConfig(**settings), make_network())
    assert type(sgd) is torch.optim.SGD
    assert [sgd.defaults[name] for name in ("lr", "momentum", "weight_decay")] == [0.3, 0.7, 0.01]
    adam = build_optimizer(VictimConfig(optimizer="adam", **settings), make_network())
    assert type(adam) is torch.optim.Adam
    assert [adam.defaults[name] for name in ("lr", "betas", "weight_decay")] == [0.3, (0.7, 0.999), 0.01]


def test_every_fifth_step_ends_at_the_running_mean_of_such_steps():
    memories = [0.0, 0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]
    rng = np.random.default_rng(0)
    first, gradients = rng.normal(size=(3, 4)), rng.normal(size=(10, 3, 4))
    weight = torch.nn.Parameter(torch.from_numpy(first.copy()))
    optimizer = AveragedSGD([weight], lr=0.1, momentum=0.8, weight_decay=0.01, nesterov=True)
    expected, mean, velocity = first, None, np.zeros_like(first)
    for step, (memory, gradient) in enumerate(zip(memories, gradients, strict=True), 1):
        optimizer.param_groups[0]["memory"] = memory
        weight.grad = torch.from_numpy(gradient)
        optimizer.step()
        decayed = gradient + 0.01 * expected
        velocity = decayed if step == 1 else 0.8 * velocity + decayed
        expected = expected - 0.1 * (decayed + 0.8 * velocity)
        if step % AveragedSGD.EVERY == 0:
            mean = expected if mean is None else memory * mean + (1 - memory) * expected
            expected = mean
        np.testing.assert_allclose(weight.detach().numpy(), expected, rtol=1e-12)
