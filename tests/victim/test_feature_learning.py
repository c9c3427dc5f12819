"""Victims that learn features first: on one rank, on two, and against a step worked out by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from slowly import slow_but
from toys import ToySource

from hpcule.config.errors import HpculeError, UsageError
from hpcule.nets.contrastive_losses import info_nce, nt_xent, regression, supervised_nt_xent
from hpcule.victim import feature_learning
from hpcule.victim.config import VictimConfig
from hpcule.victim.countermeasures.table import Countermeasures
from hpcule.victim.feature_learning import LOOKS, PRESETS, _Learning
from hpcule.victim.linear_layer import gathered
from hpcule.victim.published import Published
from hpcule.victim.supervised import train_network
from hpcule.victim.training import train_victim

RESIDENT = 2**30


def make_sets(n=90, m=40, contrast=0.4):
    sources = ToySource(n, seed=0, contrast=contrast), ToySource(m, seed=1, contrast=contrast)
    return tuple(Published(source, resident=RESIDENT) for source in sources)


def config_of(*steps, **settings):
    return VictimConfig(network="convnet", precision="fp32", countermeasures=Countermeasures.parse(steps), **settings)


def weights_of(learning):
    return torch.cat([parameter.detach().flatten() for parameter in learning.learner.parameters()])


def step_on(world, name, samples=29):
    """How a step moves the weights, with BatchNorm over both ranks."""
    config = config_of(f"{name}-2", batch_norm="synchronised")
    learning = _Learning(config, make_sets()[0], world, 0)
    learning.learner.train()
    before = weights_of(learning)
    learning._learn(np.arange(samples), 0)
    queue = getattr(learning.learner, "queue", torch.zeros(1))
    return (weights_of(learning) - before).numpy(), queue.numpy()


@pytest.mark.parametrize("name", slow_but(["simclr", "byol"], PRESETS))
def test_a_victim_learns_features_and_a_layer_on_them(alone, name):
    told = []
    config = config_of(f"{name}-10")
    result = train_victim(config, *make_sets(), alone, 0, lambda done, total: told.append((done, total))).result
    assert [point.epoch for point in result.curve] == [2, 4, 6, 8, 10]
    assert len(result.curve) == LOOKS
    assert result.last.test > 0.6
    assert result.last.train >= result.last.test
    assert result.steps == 20
    assert told == [(epoch, 10) for epoch in range(1, 11)]
    assert result.seconds > 0
    assert 0 < result.alignment < 2
    assert -4 < result.uniformity < 0


def test_the_same_seed_gives_the_same_victim_and_another_another(alone):
    curves = [
        train_victim(config_of("simclr-3"), *make_sets(contrast=0.05), alone, seed).result.curve for seed in (0, 0, 1)
    ]
    assert curves[0] == curves[1] != curves[2]


@pytest.mark.parametrize("name", PRESETS)
def test_two_ranks_learn_what_one_does(pool, alone, name):
    expected, queue = step_on(alone, name)
    assert np.linalg.norm(expected) > 0.01
    for found, other in pool.run(step_on, name):
        # Up to 1.2 % by rounding, which BatchNorm enlarges where a channel hardly varies; 100 % off if SimCLR's
        # negatives are those of its own rank.
        assert np.linalg.norm(found - expected) < 0.03 * np.linalg.norm(expected)
        np.testing.assert_allclose(other, queue, atol=1e-4)


def gather_on(world, counts):
    start = sum(counts[: world.rank])
    rows = torch.arange(float(start), start + counts[world.rank])[:, None].requires_grad_()
    everything = gathered(rows, [np.arange(count) for count in counts], world)
    (everything[:, 0] * torch.arange(1.0, 1 + len(everything))).sum().backward()
    return everything.tolist(), rows.grad.flatten().tolist()


def test_rows_of_all_ranks_come_together_and_gradients_stay_at_home(pool):
    found = pool.run(gather_on, [2, 3])
    assert [everything for everything, _ in found] == [[[0.0], [1.0], [2.0], [3.0], [4.0]]] * 2
    assert [gradient for _, gradient in found] == [[1.0, 2.0], [3.0, 4.0, 5.0]]


@pytest.mark.parametrize("name", PRESETS)
def test_the_loss_is_the_learners_over_the_whole_batch(alone, name):
    learning, batch = _Learning(config_of(f"{name}-2"), make_sets()[0], alone, 0), np.arange(20)
    learning.learner.eval()
    queries, keys = learning.learner(*learning._views(learning.train, batch, 0))
    labels = learning.train.labels[:20]
    slow = {
        "simclr": lambda: nt_xent(queries, keys, 0.5),
        "moco": lambda: info_nce(queries, keys, learning.learner.queue, 0.2),
        "byol": lambda: regression(queries, keys),
        "simsiam": lambda: regression(queries, keys),
        "supcl": lambda: supervised_nt_xent(queries, keys, labels, 0.1),
    }
    torch.testing.assert_close(learning._loss(queries, keys, labels), slow[name]())


def test_labels_are_for_the_layer_alone_but_in_supervised_contrast(alone):
    """Of wrong labels SimCLR's features know nothing."""
    weights = {}
    for name in ("simclr", "supcl"):
        for shift in (0, 1):
            train = make_sets()[0]
            train.source.labels = np.roll(train.source.labels, shift)
            train.source.labels[::5] = 0
            learning = _Learning(config_of(f"{name}-1"), train, alone, 0)
            learning.epoch(0)
            weights[name, shift] = weights_of(learning)
    assert torch.equal(weights["simclr", 0], weights["simclr", 1])
    assert not torch.equal(weights["supcl", 0], weights["supcl", 1])


def test_views_are_drawn_anew_in_every_epoch(alone):
    train, _ = make_sets()
    learning = _Learning(config_of("simclr-2"), train, alone, 0)
    first, second = learning._views(learning.train, np.arange(4), 0)
    assert first.shape == second.shape == (4, 3, 8, 8)
    assert not torch.equal(first, second)
    assert not torch.equal(first, learning._views(learning.train, np.arange(4), 1)[0])


def test_rates_warm_up_and_are_smaller_for_smaller_batches(alone):
    learning = _Learning(config_of("simclr-20"), make_sets()[0], alone, 0)
    assert learning.schedule.steps_an_epoch == 2
    assert learning.schedule.learning_rate == pytest.approx(0.5 * 45 / 512)
    assert learning.schedule.warmup == pytest.approx(4)
    assert feature_learning._schedule(0.5, 1000, 50_000).steps_an_epoch == 98
    assert feature_learning._schedule(0.5, 10, 91).steps_an_epoch == 2


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("rest", [1, 2, 3])
def test_two_ranks_learn_from_a_small_rest_what_one_does(pool, alone, name, rest):
    expected, queue = step_on(alone, name, rest)
    assert np.isfinite(expected).all()
    for found, other in pool.run(step_on, name, rest):
        assert np.linalg.norm(found - expected) < 0.01 * np.linalg.norm(expected)
        np.testing.assert_allclose(other, queue, atol=1e-4)


def test_features_that_diverge_are_no_protection(alone, monkeypatch):
    monkeypatch.setitem(feature_learning.PRESETS, "simclr", dataclasses.replace(PRESETS["simclr"], rate=1e30))
    with pytest.raises(HpculeError, match="features of simclr diverged"):
        train_victim(config_of("simclr-5"), *make_sets(), alone, 0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"weight_noise": 0.1}, "simclr needs engine=ddp"), ({"engine": "deepspeed"}, "simclr needs engine=ddp")],
)
def test_what_has_no_meaning_there_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        config_of("simclr", **settings)


def test_there_is_no_classifier_to_measure(alone):
    with pytest.raises(UsageError, match="no classifier is trained as a whole"):
        train_network(config_of("simclr"), *make_sets(), alone, 0)
