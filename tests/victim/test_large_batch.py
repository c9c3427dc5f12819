"""What a study of the batch size asks of a victim: equal gradients, their norms, a budget of steps, a target."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from slowly import slow_but
from torch import nn
from torch.nn import functional
from toys import ToySource

from hpcule.config.errors import UsageError
from hpcule.victim.config import VictimConfig
from hpcule.victim.countermeasures.table import Countermeasures
from hpcule.victim.published import Published
from hpcule.victim.supervised import _Trainer
from hpcule.victim.training import train_victim

RESIDENT = 2**30
SETTINGS = {"network": "convnet", "epochs": 2, "batch": 23, "learning_rate": 0.05, "precision": "fp32"}


def make_sets(n=69, m=60):
    return tuple(Published(ToySource(k, seed=s), resident=RESIDENT) for s, k in enumerate((n, m)))


def make_trainer(world, settings):
    return _Trainer(VictimConfig(**{**SETTINGS, **settings}), make_sets()[0], world, 0)


def weights(network):
    return [parameter.detach().numpy().copy() for parameter in network.parameters()]


def freeze_norms(network):
    """Evaluate every BatchNorm by fixed statistics, in training too."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train = lambda mode=True, module=module: module
            module.training = False


def walk_frozen(world, settings):
    trainer = make_trainer(world, settings)
    freeze_norms(trainer.network)
    taken, original = [], trainer.train.images
    trainer.train.images = lambda numbers, device: taken.append(len(numbers)) or original(numbers, device)
    for epoch in range(2):
        trainer.epoch(epoch)
    return weights(trainer.network), taken


def assert_same(found, expected):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("steps", ["plain", "crop-flip"])
def test_micro_batches_take_the_steps_of_the_whole_batch(pool, alone, steps):
    settings = {"countermeasures": Countermeasures.parse(steps)}
    whole, taken = walk_frozen(alone, settings)
    assert taken == [23] * 6
    cut, taken = walk_frozen(alone, {**settings, "micro_batch": 5})
    assert taken == [5, 5, 5, 4, 4] * 6
    assert_same(cut, whole)
    # 12 and 11 samples a rank: parts of unequal size, but as many on both.
    ranks = pool.run(walk_frozen, {**settings, "micro_batch": 5})
    assert [taken[:3] for _, taken in ranks] == [[4, 4, 4], [4, 4, 3]]
    for found, _ in ranks:
        assert_same(found, whole)


def test_a_step_is_that_of_a_plain_loop(alone):
    """Against SGD written out: one step on the mean loss of one batch."""
    trainer = make_trainer(alone, {"micro_batch": 4, "momentum": 0.0, "warmup_epochs": 0, "weight_decay": 0.0})
    freeze_norms(trainer.network)
    before = weights(trainer.network)
    batch = np.arange(23)
    pairs = zip(*trainer.train.take(batch), strict=True)
    loss = sum(functional.cross_entropy(trainer.network(s[None] / 255), y[None]) for s, y in pairs) / 23
    gradients = torch.autograd.grad(loss, list(trainer.network.parameters()))
    trainer._learn(batch, 0)
    for old, gradient, new in zip(before, gradients, weights(trainer.network), strict=True):
        np.testing.assert_allclose(new, old - 0.05 * gradient.numpy(), rtol=1e-4, atol=1e-6)


def walk_with_norms(world, batch_norm):
    trainer = make_trainer(world, {"batch_norm": batch_norm})
    for epoch in range(2):
        trainer.epoch(epoch)
    return [tensor.numpy() for tensor in trainer.network.state_dict().values()]


def test_two_ranks_with_synchronised_batch_norm_train_the_network_of_one(pool, alone):
    """Batches of 23 are 12 and 11 samples; running statistics are part of what is compared."""
    expected = walk_with_norms(alone, "local")
    first, second = pool.run(walk_with_norms, "synchronised")
    for one, other, whole in zip(first, second, expected, strict=True):
        assert (one == other).all()
        np.testing.assert_allclose(one, whole, rtol=1e-4, atol=1e-5)
    local = pool.run(walk_with_norms, "local")[0]
    assert any(abs(one - whole).max() > 1e-3 for one, whole in zip(local, expected, strict=True))


def trained(world, settings, sets=None):
    return train_victim(VictimConfig(**{**SETTINGS, **settings}), *(sets or make_sets()), world, 0).result


@pytest.mark.parametrize(("batch", "epochs"), [(23, 3), (69, 7), (10, 1)])
def test_a_budget_of_steps_ends_the_run(alone, batch, epochs):
    told = []
    config = VictimConfig(**{**SETTINGS, "batch": batch, "steps": 7})
    result = train_victim(config, *make_sets(), alone, 0, lambda *state: told.append(state)).result
    assert result.steps == 7
    assert [point.epoch for point in result.curve] == list(range(1, epochs + 1))
    assert told == [(epoch, epochs) for epoch in range(1, epochs + 1)]
    assert all(0 <= point.train <= 1 for point in result.curve)


def accuracies(world, settings, script):
    """Steps to target, and the steps after which it was looked for, of a victim that scores as the script says."""
    looked, original = [], _Trainer.test

    def test(self, samples, after_batch=lambda: None):
        original(self, samples)
        looked.append(self.step)
        return {"accuracy": script.get(self.step, 0.1)}

    _Trainer.test = test
    try:
        return trained(world, settings).steps_to_target, looked
    finally:
        _Trainer.test = original


def test_the_first_step_at_the_target_is_recorded(alone):
    script = {4: 0.6, 5: 0.2, 6: 0.7, 9: 0.9}
    settings = {"epochs": 3, "target": 0.6}
    # Three steps an epoch: without looking in between, step 4 is missed.
    assert accuracies(alone, settings, script) == (6, [3, 6, 9])
    assert accuracies(alone, {**settings, "evaluate_every": 2}, script) == (4, [2, 3, 4, 6, 9])
    assert accuracies(alone, {**settings, "target": 0.95}, script) == (None, [3, 6, 9])
    assert accuracies(alone, {"epochs": 3}, script) == (None, [3, 6, 9])


def watched_on(world, settings):
    result = trained(world, settings, make_sets(230, 60))
    return result.curve, result.steps_to_target


@pytest.mark.slow
def test_looking_more_often_changes_nothing_else(pool, alone):
    plain = {"epochs": 6, "target": 0.8}
    often = {**plain, "evaluate_every": 3}
    curve, _ = watched_on(alone, plain)
    watched, steps = watched_on(alone, often)
    assert watched == curve
    assert steps is not None
    assert steps % 3 == 0 or steps % 10 == 0
    first, second = pool.run(watched_on, often)
    assert first == second


@pytest.mark.parametrize("optimizer", slow_but(["lars"], ["adam", "lars", "lamb"]))
def test_every_optimizer_learns(alone, optimizer):
    rate = {"adam": 0.003, "lars": 5.0, "lamb": 0.01}[optimizer]
    settings = {"optimizer": optimizer, "learning_rate": rate, "epochs": 12}
    assert trained(alone, settings, make_sets(230, 100)).last.test > 0.9


def mean_gradient(trainer, numbers):
    """The gradient of the mean loss over some samples, all parameters in one vector."""
    samples, labels = trainer.train.take(numbers)
    loss = functional.cross_entropy(trainer.network(samples.float() / 255), labels)
    return torch.cat([part.flatten() for part in torch.autograd.grad(loss, list(trainer.network.parameters()))])


def one_step(world, settings):
    """What the meter saw of one step, and what it should have seen, group by group."""
    trainer = make_trainer(world, {"noise_scale_every": 1, **settings})
    freeze_norms(trainer.network)
    batch = np.arange(23)
    if world.size > 1:
        groups = np.array_split(batch, world.size)
    else:
        groups = np.array_split(batch, -(-23 // settings["micro_batch"]))
    squares = [float(mean_gradient(trainer, group).square().sum()) for group in groups]
    whole = float(mean_gradient(trainer, batch).square().sum())
    trainer._learn(batch, 0)
    ((step, seen),) = trainer.meter.log
    return step, seen, [len(group) for group in groups], squares, whole


def check(step, seen, sizes, squares, whole):
    assert step == 0
    assert (seen.groups, seen.samples) == (len(sizes), 23)
    weighted = sum(size * square for size, square in zip(sizes, squares, strict=True))
    assert seen.weighted_squares == pytest.approx(weighted, rel=1e-4)
    assert seen.squared_norm == pytest.approx(whole, rel=1e-4)
    assert weighted > 1.01 * 23 * whole, "the groups differ"


def test_a_single_worker_sees_the_parts_of_a_batch(alone):
    check(*one_step(alone, {"micro_batch": 5}))


@pytest.mark.parametrize("settings", [{}, {"micro_batch": 4}])
def test_two_workers_see_each_others_shares(pool, settings):
    for found in pool.run(one_step, settings):
        check(*found)


def test_every_so_many_steps_and_the_training_stays_the_same(alone):
    plain = trained(alone, {"micro_batch": 8})
    measured = trained(alone, {"micro_batch": 8, "noise_scale_every": 2})
    assert plain.gradient_norms == []
    assert [step for step, _ in measured.gradient_norms] == [0, 2, 4]
    assert [point.test for point in measured.curve] == [point.test for point in plain.curve]


def test_one_group_is_refused(alone):
    config = VictimConfig(network="convnet", batch=23, noise_scale_every=1)
    with pytest.raises(UsageError, match=r"set victim\.micro_batch to at most 11"):
        train_victim(config, *make_sets(), alone, 0)


def test_deepspeed_is_refused():
    with pytest.raises(ValueError, match="noise_scale_every needs engine=ddp"):
        VictimConfig(engine="deepspeed", noise_scale_every=1)
