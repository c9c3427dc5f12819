"""PUE: noise on the surrogate's weights, in both phases."""

import numpy as np
import pytest
import torch
from toys import ToySource, craft, restore, save
from two_phase_toys import CLASSES, loss_of, make_method, unit

from hpcule.config.errors import UsageError
from hpcule.craft.parts.surrogate import logits_of
from hpcule.nets.weight_noise import levels, moved, places
from hpcule.world.keyed import key

SOURCE = ToySource(60, classes=CLASSES)
IDS = np.arange(12)


def weights(network):
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


def ready(*extra):
    method = make_method("pue", SOURCE, None, *extra)
    craft(method, stop_after=method.steps)
    return method, method.frozen()


# -- noise on weights


@pytest.mark.parametrize(
    ("largest", "increment", "expected"),
    [(0.25, 0.05, [0, 0.05, 0.1, 0.15, 0.2, 0.25]), (0.3, 0.1, [0, 0.1, 0.2, 0.3]), (0.04, 0.05, [0]), (0, 1, [0])],
)
def test_levels_go_up_to_the_largest(largest, increment, expected):
    assert levels(largest, increment) == pytest.approx(expected)


def test_noise_is_on_every_parameter_and_leaves_no_trace():
    method, frozen = ready()
    before, statistics = weights(frozen), [buffer.clone() for buffer in frozen.buffers()]
    norms = [layer for layer in frozen.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    assert norms, "folded into convolutions, their own weights could not be moved"
    with moved(0.1, 3)(frozen):
        noise = weights(frozen) - before
        assert (noise != 0).float().mean() > 0.999
        assert noise.std() == pytest.approx(0.1, rel=0.02)
        assert all(torch.equal(kept, buffer) for kept, buffer in zip(statistics, frozen.buffers(), strict=True))
        with moved(0.1, 3)(method.surrogate.network):
            pass
    assert torch.equal(weights(frozen), before)
    with moved(0.1, 4)(frozen):
        assert not torch.equal(weights(frozen) - before, noise)
    assert len(places(0.0, 10, 0, "a")) == 1, "without noise all draws are alike"


# -- the deltas


def test_a_step_a_level_follows_the_mean_gradient_around_the_weights():
    method, frozen = ready("method.noise_draws=3")
    clean, labels = unit(SOURCE, IDS)
    found = method.noise.descend(frozen, clean, torch.zeros_like(clean), labels, IDS, 5)
    delta = torch.zeros_like(clean)
    for deviation in (0.0, 0.05, 0.1):
        leaf = (clean + delta).clamp(0, 1).requires_grad_()
        for draw in range(3):
            number = key(0, "pue", "noise weights", 5, 0, round(deviation * 1e6), draw) % 2**63
            with moved(deviation, number)(frozen):
                torch.nn.functional.cross_entropy(logits_of(frozen, leaf), labels, reduction="sum").backward()
        delta = (leaf.detach() - 0.8 / 255 * leaf.grad.sign() - clean).clamp(-8 / 255, 8 / 255)
    assert ((found - delta).abs() < 1e-6).float().mean() > 0.98


@pytest.mark.slow
def test_a_step_lowers_the_loss_around_the_weights_more_than_ems_does():
    """Where EM looks at the weights alone; both have made the same step at level 0 before."""
    settings = ["method.weight_noise=0.04", "method.weight_noise_step=0.04", "method.noise_draws=8"]
    settings += ["method.step_size=2", "method.learning_rate=0.05", "method.model_steps=20"]
    method, frozen = ready(*settings)
    ids = np.arange(60)
    clean, labels = unit(SOURCE, ids)
    zero = torch.zeros_like(clean)
    around = method.noise.descend(frozen, clean, zero, labels, ids, 0)
    em = make_method("em", SOURCE, None, "method.noise_steps=2", "method.step_size=2", "method.unit=sample")
    at = em.noise.descend(frozen, clean, zero, labels, ids, 0)

    def loss(delta):
        found = []
        for place in places(0.04, 8, 0, "pue", "noise weights", 0, 0, 40_000):
            with place(frozen):
                found.append(loss_of(frozen, (clean + delta).clamp(0, 1), labels))
        return torch.stack(found).mean()

    assert loss(around) < 0.95 * loss(at)
    assert loss(at) < loss(zero)


# -- the surrogate


def test_a_noisy_step_follows_the_mean_gradient_around_the_weights():
    method = make_method("pue", SOURCE)
    network, batch = method.surrogate.network, method.schedule.at(0)
    around = places(0.1, 3, 0, "test")
    before = weights(network)
    total = 0
    for place in around:
        with place(network):
            for ghost in batch:
                inputs, labels = method._load(ghost)
                loss = torch.nn.functional.cross_entropy(network(inputs), labels, reduction="sum")
                gradients = torch.autograd.grad(loss, list(network.parameters()))
                total = total + torch.cat([gradient.flatten() for gradient in gradients])
    size = sum(len(ghost.ids) for ghost in batch)
    expected = total / (3 * size) + 5e-4 * before
    method.surrogate.clip_norm = None
    method.surrogate.train(batch, method._load, 0.1, around)
    torch.testing.assert_close((before - weights(network)) / 0.1, expected, rtol=1e-3, atol=1e-4)


def test_noise_comes_once_the_error_has_been_small_and_stays(tmp_path):
    method = make_method("pue", SOURCE, None, "method.noisy_below=0.4", "method.max_rounds=4")
    updates = []
    train = method.surrogate.train

    def note(batch, load, rate, places=(None,)):
        updates.append(len(places))
        return train(batch, load, rate, *([places] if places[0] else []))

    method.surrogate.train = note
    errors = iter([0.9, 0.3, 0.8, 0.8])
    method.noise.error = lambda: next(errors)
    for _ in method.run():
        if method.noisy:
            break
    assert updates == [1] * 4, "two rounds of two model steps"
    save(method, tmp_path)
    again = restore(make_method("pue", SOURCE, None, "method.noisy_below=0.4", "method.max_rounds=4"), tmp_path)
    assert again.noisy
    again.surrogate.train, train = note, again.surrogate.train
    updates.clear()
    again._model_step()
    assert updates == [1, 2, 2], "one update at each level, 0 without draws"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("method.weight_noise=-1", "weight_noise=-1: valid are numbers from 0"),
        ("method.weight_noise_step=0", "weight_noise_step=0: valid are numbers above 0"),
        ("method.noise_draws=0", "noise_draws=0: valid are whole numbers from 1"),
    ],
)
def test_what_makes_no_sense_is_refused(setting, message):
    with pytest.raises(UsageError, match=message):
        make_method("pue", SOURCE, None, setting)
