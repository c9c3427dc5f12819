from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from toys import ToySource, craft, joined, make_problem, restore, save

from hpcule.config.errors import HpculeError
from hpcule.craft.methods.pil import PIL, PILConfig
from hpcule.world.keyed import key, uniform

CLASSES = 4


def make_source(n=90, **settings):
    return ToySource(n, (3, 6, 6), CLASSES, **settings)


def linear_of(method):
    first, second = method.weights
    return second @ first


def published_loop(linear, samples, labels, start, config):
    """The published algorithm with automatic differentiation, float64: x - delta, one value of delta a pixel.

    samples: [n, D] in [0, 1]; returns delta [n, D].
    """
    linear, samples, delta = linear.double(), samples.double(), start.double()
    epsilon, size = config.epsilon / 255, config.step_size / 255
    flat = torch.full((len(samples), CLASSES), 1 / CLASSES, dtype=torch.float64)
    for _ in range(config.steps):
        delta.requires_grad_()
        shortcut = functional.cross_entropy(delta @ linear.t(), labels)
        undecided = functional.log_softmax((samples - delta) @ linear.t(), dim=1)
        obfuscation = functional.kl_div(undecided, flat, reduction="batchmean")
        loss = config.mix * shortcut + (1 - config.mix) * obfuscation
        (gradient,) = torch.autograd.grad(loss, delta)
        delta = (delta.detach() - size * gradient.sign()).clamp(-epsilon, epsilon)
    return delta


def start_of(source, epsilon, seed=0):
    values = torch.from_numpy(uniform(key(seed, "pil", "start"), np.arange(len(source)), math.prod(source.shape)))
    return (2 * values - 1) * (epsilon / 255)


@pytest.mark.parametrize("mix", [0.9, 0.3, 0.0])
def test_one_step_goes_where_the_published_objective_says(mix):
    # A step of twice the budget ends at a corner of the box: the published levels show the sign of every entry.
    config = PILConfig(epochs=3, steps=1, step_size=16, mix=mix, batch=32, ghost=16)
    source = make_source(contrast=0.15)
    method = PIL(config, make_problem(source))
    found = craft(method).delta.reshape(len(source), -1)
    samples = torch.from_numpy(source.samples / 255).flatten(1)
    expected = published_loop(linear_of(method), samples, torch.from_numpy(source.labels), start_of(source, 8), config)
    inside = (source.samples >= 8) & (source.samples <= 247)
    assert inside.mean() > 0.99
    agreed = (found == -torch.sign(expected).numpy() * 8)[inside.reshape(found.shape)]
    assert agreed.all()


def test_thirty_steps_equal_the_published_loop():
    config = PILConfig(epochs=3, step_size=0.8, batch=32, ghost=16)
    source = make_source()
    method = PIL(config, make_problem(source))
    found = craft(method).delta
    samples = torch.from_numpy(source.samples / 255).flatten(1)
    delta = published_loop(linear_of(method), samples, torch.from_numpy(source.labels), start_of(source, 8), config)
    clean = source.samples.astype(np.int64)
    levels = np.rint(-delta.numpy() * 255).reshape(clean.shape).clip(-8, 8)
    expected = (clean + levels).clip(0, 255) - clean
    # An entry whose gradient is nearly zero walks to and fro, and rounding decides where it ends.
    assert (found == expected).mean() > 0.999
    assert np.abs(found - expected).max() <= 2


def test_the_default_step_is_a_tenth_of_the_budget():
    source = make_source(40)
    implied = craft(PIL(PILConfig(epochs=1, epsilon=16), make_problem(source))).delta
    given = craft(PIL(PILConfig(epochs=1, epsilon=16, step_size=1.6), make_problem(source))).delta
    np.testing.assert_array_equal(implied, given)
    assert np.abs(implied).max() == 16


def test_the_published_sample_is_the_clean_one_minus_delta():
    """What was taken away shouts the label; what is left tells the surrogate nothing. With the other sign both fail."""
    source = make_source(200)
    method = PIL(PILConfig(epochs=30, batch=40, ghost=10, learning_rate=0.05, epsilon=40), make_problem(source))
    added = craft(method).delta
    linear = linear_of(method)
    labels = torch.from_numpy(source.labels)
    clean = torch.from_numpy(source.samples / 255).flatten(1).float()
    taken = torch.from_numpy(-added / 255).flatten(1).float()
    assert ((clean @ linear.t()).argmax(1) == labels).float().mean() > 0.9
    assert ((taken @ linear.t()).argmax(1) == labels).float().mean() > 0.95
    left = clean - taken

    def doubt(samples):
        """KL from the uniform distribution: 0 where the surrogate is undecided."""
        return -(functional.log_softmax(samples @ linear.t(), 1) + math.log(CLASSES)).mean(1)

    assert doubt(left).mean() < 0.7 * doubt(clean).mean()
    assert doubt(clean + taken).mean() > 1.2 * doubt(clean).mean()


def trained(config, source, **settings):
    method = PIL(config, make_problem(source, **settings))
    start = [weight.clone() for weight in method.weights]
    craft(method, stop_after=config.epochs)
    return start, method


def test_the_surrogate_is_two_linear_layers_trained_with_sgd():
    source = make_source(100)
    config = PILConfig(epochs=4, batch=40, ghost=10, learning_rate=0.1)
    start, method = trained(config, source, shards=3)
    network = nn.Sequential(nn.Flatten(), nn.Linear(108, CLASSES, bias=False), nn.Linear(CLASSES, CLASSES, bias=False))
    network = network.double()
    for parameter, weight in zip(network.parameters(), start, strict=True):
        parameter.data.copy_(weight)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.epochs)
    # 33, 33 and 34 samples in four ghosts each, round-robin over the shards, cut after 40 and 80 samples.
    parts = [np.array_split(method.problem.partition.ids(shard), 4) for shard in range(3)]
    line = np.concatenate([parts[shard][layer] for layer in range(4) for shard in range(3)])
    batches = np.split(line, [40, 80])
    for _ in range(config.epochs):
        for ids in batches:
            loss = functional.cross_entropy(
                network(torch.from_numpy(source.samples[ids] / 255)), torch.from_numpy(source.labels[ids])
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        scheduler.step()
    for parameter, weight, first in zip(network.parameters(), method.weights, start, strict=True):
        assert (weight - first).abs().max() > 1e-3
        torch.testing.assert_close(weight.double(), parameter.data, rtol=1e-4, atol=1e-5)


def test_a_surrogate_trained_in_bf16_is_nearly_that_in_float32():
    source = make_source(100)
    config = PILConfig(epochs=10, batch=40, ghost=10, learning_rate=0.1)
    start, exact = trained(config, source)
    _, rounded = trained(config, source, autocast=True)
    assert rounded.weights[0].dtype is torch.float32
    for first, one, other in zip(start, exact.weights, rounded.weights, strict=True):
        assert not torch.equal(one, other)
        # bf16 has 8 significant bits.
        assert (other - one).norm() < 0.02 * (one - first).norm()


def test_initial_weights_are_those_of_a_linear_layer_and_depend_on_the_seed():
    source = make_source()
    first, second = PIL(PILConfig(), make_problem(source)).weights
    for weight, inputs in ((first, 108), (second, CLASSES)):
        bound = 1 / math.sqrt(inputs)
        assert weight.abs().max() <= bound
        assert weight.abs().max() > 0.8 * bound
    assert (PIL(PILConfig(), make_problem(source, seed=1)).weights[0] != first).any()


def craft_on(world, config, n, shards, settings):
    method = PIL(config, make_problem(make_source(n), world, shards=shards, **settings))
    return craft(method), [weight.numpy() for weight in method.weights]


@pytest.mark.parametrize("autocast", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize(("n", "shards"), [(90, 4), (61, 3)])
def test_two_ranks_and_one_craft_the_same_bits(pool, alone, n, shards, autocast):
    config = PILConfig(epochs=3, batch=30, ghost=8)
    expected, weights = craft_on(alone, config, n, shards, {"autocast": autocast})
    answers = pool.run(craft_on, config, n, shards, {"autocast": autocast})
    np.testing.assert_array_equal(joined([answer[0] for answer in answers]).delta, expected.delta)
    for _, found in answers:
        assert [weight.tobytes() for weight in found] == [weight.tobytes() for weight in weights]


def test_without_exact_sums_two_ranks_come_close(pool, alone):
    config = PILConfig(epochs=3, batch=30, ghost=8)
    expected, weights = craft_on(alone, config, 90, 4, {"exact": False})
    answers = pool.run(craft_on, config, 90, 4, {"exact": False})
    assert (joined([answer[0] for answer in answers]).delta == expected.delta).mean() > 0.99
    for found, weight in zip(answers[0][1], weights, strict=True):
        np.testing.assert_allclose(found, weight, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("stop_after", [1, 3, 5])
def test_an_interrupted_run_ends_with_the_same_bits(tmp_path, stop_after):
    source, config = make_source(), PILConfig(epochs=3, batch=30, ghost=8)
    whole = craft(PIL(config, make_problem(source)))
    assert [step.stage for step in whole.steps] == ["surrogate"] * 3 + ["noise"] * 4
    method = PIL(config, make_problem(source))
    first = craft(method, stop_after=stop_after)
    save(method, tmp_path)
    done = frozenset(first.deltas)
    rest = craft(restore(PIL(config, make_problem(source, done=done)), tmp_path))
    assert not set(rest.deltas) & done
    assert len(rest.steps) == len(whole.steps) - stop_after
    np.testing.assert_array_equal(joined([first, rest]).delta, whole.delta)


def test_every_delta_keeps_the_budget_and_the_grid():
    source = make_source(contrast=0.6)
    delta = craft(PIL(PILConfig(epochs=1, epsilon=12.5), make_problem(source))).delta
    published = source.samples.astype(np.int64) + delta
    assert published.min() >= 0
    assert published.max() <= 255
    assert (source.samples == 0).any(), "the source touches the ends of the grid"
    assert np.abs(delta).max() == 12


@pytest.mark.parametrize("exact", [True, False])
def test_a_surrogate_that_diverges_ends_the_run(exact):
    with pytest.raises(HpculeError, match=r"lower (the|method\.)"):
        craft(PIL(PILConfig(epochs=5, learning_rate=1e30), make_problem(make_source(), exact=exact)))


def test_a_16_bit_sample_gets_a_budget_on_its_own_grid():
    source = make_source(dtype=np.uint16)
    delta = craft(PIL(PILConfig(epochs=1, epsilon=100), make_problem(source))).delta
    assert np.abs(delta).max() == 100
