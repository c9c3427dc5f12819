from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
import toys
from slowly import slow_but
from torch import nn
from toys import ToySource

from hpcule.config.errors import UsageError
from hpcule.victim import supervised
from hpcule.victim.batches import Batches
from hpcule.victim.config import VictimConfig
from hpcule.victim.countermeasures import denoise, dvae
from hpcule.victim.countermeasures.purify import PURIFICATIONS
from hpcule.victim.countermeasures.table import COUNTERMEASURES, Countermeasures
from hpcule.victim.countermeasures.window import CT_WINDOWS
from hpcule.victim.published import Published
from hpcule.victim.reading import ReadingSteps
from hpcule.victim.recipe import TRANSFERS, Recipe
from hpcule.victim.result import EpochResult, VictimResult
from hpcule.victim.supervised import _Trainer
from hpcule.victim.training import train_victim

RESIDENT = 2**30
SETTINGS = {"network": "convnet", "epochs": 10, "batch": 50, "learning_rate": 0.05, "precision": "fp32"}


def make_sets(n=230, m=101, **settings):
    """Training and test samples of one task."""
    sources = ToySource(n, seed=0, **settings), ToySource(m, seed=1, **settings)
    return tuple(Published(source, resident=RESIDENT) for source in sources)


def train_on(world, settings=None, seed=0):
    result = train_victim(VictimConfig(**{**SETTINGS, **(settings or {})}), *make_sets(), world, seed).result
    return result.curve, result.steps


@pytest.mark.parametrize("steps", ["plain", "crop-flip"])
def test_a_victim_learns_a_separable_task(alone, steps):
    told = []
    config = VictimConfig(**SETTINGS, countermeasures=Countermeasures.parse(steps))
    result = train_victim(config, *make_sets(), alone, 0, lambda done, total: told.append((done, total))).result
    assert result.last.test > 0.95
    assert result.last.train > 0.9
    assert result.curve[0].test < result.last.test
    # 230 samples in 4 batches of 50 and one of 30.
    assert (result.steps, result.samples_seen, result.batch_taken) == (5 * 10, 230 * 10, 50)
    assert [point.epoch for point in result.curve] == list(range(1, 11))
    assert told == [(epoch, 10) for epoch in range(1, 11)]
    assert result.seconds > 0


IN_TRAINING = [
    name
    for name, kind in COUNTERMEASURES.items()
    if kind.stage not in ("test", "features", "after") and name not in (*TRANSFERS, *PURIFICATIONS, *CT_WINDOWS)
]


@pytest.fixture(scope="module")
def plain_curve():
    return train_on(toys.alone())[0]


@pytest.mark.parametrize("name", slow_but(["cutmix", "jpeg", "projection", "fixmatch", "adversarial"], IN_TRAINING))
def test_a_victim_trains_with_every_countermeasure(alone, plain_curve, name, monkeypatch):
    monkeypatch.setattr(dvae, "FEWEST_STEPS", 100)
    monkeypatch.setattr(denoise, "FIT", dataclasses.replace(denoise.FIT, steps=5))
    step = {"size": "size-16"}.get(name, name)
    config = VictimConfig(**SETTINGS, countermeasures=Countermeasures.parse(step))
    train, test = make_sets()
    result = train_victim(config, train, test, alone, 0).result
    # The toys' classes are linear, which is what these take away: new samples are recognised by chance, and training
    # shows in the known ones alone.
    assert (result.last.train if name in ("projection", "class-means") else result.last.test) > 0.5
    # These samples are clean, in which a denoiser finds no noise.
    assert (result.curve == plain_curve) == (name == "denoise")


def test_what_a_network_sees_has_been_through_the_countermeasures(alone):
    config = VictimConfig(**SETTINGS, countermeasures=Countermeasures.parse(("bit-depth-1", "cutout-50")))
    train, _ = make_sets()
    mixed = Batches(config, ReadingSteps(train, config, 0, alone).train, 0, alone.device).take(np.arange(50), 0, 0, 0.0)
    assert set(mixed.images.unique().tolist()) == {0.0, torch.tensor(128).div(255).item()}
    # A square of half the width, or what of it lies inside.
    assert ((mixed.images == 0).all(1).flatten(1).sum(1) >= 4).all()
    assert torch.equal(mixed.targets, train.take(np.arange(50))[1])


def test_the_same_seed_gives_the_same_victim_and_another_another(alone):
    first = train_on(alone)
    assert train_on(alone) == first
    assert train_on(alone, seed=1)[0] != first[0]


def test_the_last_epoch_counts_and_the_best_is_kept():
    curve = [EpochResult(1, 0.2, 0.5), EpochResult(2, 0.6, 0.9), EpochResult(3, 0.9, 0.7)]
    result = VictimResult(0, curve=curve)
    assert result.last == curve[2]
    assert result.best == curve[1]


def test_every_step_has_its_rate(alone):
    config = VictimConfig(**{**SETTINGS, "epochs": 4, "learning_rate": 1.0, "optimizer": "lars"})
    trainer = _Trainer(config, make_sets()[0], alone, 0)
    rates = []
    for step in range(20):
        trainer.state.result.steps = step
        trainer._set_rate()
        rates.append(trainer.optimizer.param_groups[1]["lr"])
    cosine = [0.5 * (1 + math.cos(math.pi * step / 20)) for step in range(20)]
    warm = [0.2, 0.4, 0.6, 0.8] + [1.0] * 16
    assert rates == pytest.approx([a * b for a, b in zip(cosine, warm, strict=True)])


def constant_trainer(world, samples):
    """A trainer whose network says class 0 to everything."""
    trainer = _Trainer(VictimConfig(**SETTINGS), samples, world, 0)
    with torch.no_grad():
        trainer.network.linear.weight.zero_()
        trainer.network.linear.bias.copy_(torch.tensor([1.0, 0, 0]))
    return trainer


def count_on(world, m):
    samples, test = make_sets(m=m)
    return constant_trainer(world, samples).test(test)["accuracy"]


@pytest.mark.parametrize("m", [1, 7, 1003])
def test_every_test_sample_counts_once(pool, alone, m):
    exact = -(-m // 3) / m  # classes follow one another
    assert count_on(alone, m) == exact
    assert pool.run(count_on, m) == [exact, exact]


class Spy(Published):
    """Notes which samples are asked for."""

    def __init__(self, *arguments, **settings):
        super().__init__(*arguments, **settings)
        self.asked = []

    def images(self, numbers, device):
        self.asked.append(numbers.tolist())
        return super().images(numbers, device)


def walk_on(world, epochs):
    """Which training samples this rank asks for in every step."""
    spy = Spy(ToySource(23), resident=RESIDENT)
    trainer = _Trainer(VictimConfig(**{**SETTINGS, "batch": 5}), spy, world, 0)
    for epoch in range(epochs):
        trainer.epoch(epoch)
    return spy.asked


def test_an_epoch_shows_every_sample_once_in_batches_as_asked_for_and_a_rest(pool, alone):
    asked = walk_on(alone, 2)
    assert [len(batch) for batch in asked] == [5, 5, 5, 5, 3] * 2
    for epoch in (asked[:5], asked[5:]):
        assert sorted(number for batch in epoch for number in batch) == list(range(23))
    assert asked[:5] != asked[5:]
    first, second = pool.run(walk_on, 2)
    for step, (one, other, both) in enumerate(zip(first, second, asked, strict=True)):
        # The rest of 3 would leave a rank a single sample, and both take it whole.
        assert (one if step % 5 == 4 else one + other) == both == (other if step % 5 == 4 else one + other)


def test_two_ranks_train_one_victim_together(pool, alone):
    first, second = pool.run(train_on)
    assert first == second
    (curve, steps), (alone_curve, alone_steps) = first, train_on(alone)
    assert steps == alone_steps
    assert curve[-1].test > 0.95
    assert abs(curve[-1].test - alone_curve[-1].test) < 0.05
    assert abs(curve[-1].train - alone_curve[-1].train) < 0.08


def weights_on(world, n):
    """Two epochs in batches of 5 and a rest; without BatchNorm the gradient is that of the whole batch."""
    torch.manual_seed(0)
    original = supervised.build_network
    supervised.build_network = lambda *arguments: nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    try:
        samples = Published(ToySource(n), resident=RESIDENT)
        trainer = _Trainer(VictimConfig(**{**SETTINGS, "batch": 5}), samples, world, 0)
    finally:
        supervised.build_network = original
    accuracies = [trainer.epoch(epoch) for epoch in range(2)]
    assert max(accuracies) <= 1, "a batch that both take whole is counted once"
    return [parameter.detach().numpy() for parameter in trainer.network.parameters()] + [np.array(accuracies)]


def fast_on(world):
    config = Recipe.parse("speed").applied(VictimConfig(**{**SETTINGS, "epochs": 4}))
    found = train_victim(config, *make_sets(), world, 0)
    return found.result.curve, found.network.first.weight.detach().numpy().copy()


def test_ranks_fit_the_same_first_layer_and_train_the_fast_network_together(pool, alone):
    (curve, first), (other_curve, other_first) = pool.run(fast_on)
    assert curve == other_curve
    np.testing.assert_array_equal(first, other_first)
    single_curve, single_first = fast_on(alone)
    np.testing.assert_array_equal(first, single_first)
    assert min(curve[-1].test, single_curve[-1].test) > 0.9


@pytest.mark.parametrize("n", [21, 23, 24])
def test_two_ranks_take_the_steps_of_one(pool, alone, n):
    expected = weights_on(alone, n)
    for found in pool.run(weights_on, n):
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def statistics_on(world):
    """Running means of the first BatchNorm whenever the test set is shown."""
    seen, original = [], _Trainer.test

    def spy(self, *arguments):
        seen.append(self.network.features[1].running_mean.tolist())
        return original(self, *arguments)

    _Trainer.test = spy
    try:
        train_victim(VictimConfig(**{**SETTINGS, "epochs": 2}), *make_sets(), world, 0)
    finally:
        _Trainer.test = original
    return seen


def test_the_ranks_test_with_the_same_statistics(pool):
    first, second = pool.run(statistics_on)
    assert len(first) == 2
    assert first == second


def test_a_source_of_16_bits_is_scaled_by_its_own_grid(alone):
    shades = {}
    for dtype in (np.uint8, np.uint16):
        samples, _ = make_sets(n=50, dtype=dtype)
        trainer = _Trainer(VictimConfig(**SETTINGS), samples, alone, 0)
        trainer.network.eval()
        with torch.no_grad():
            shades[dtype] = trainer._logits(trainer.network, trainer.batches.take(np.arange(20), 0, 0, 0.0).images)
    torch.testing.assert_close(shades[np.uint8], shades[np.uint16], rtol=0, atol=0.01)


@pytest.mark.parametrize(("network", "settings"), [("resnet-tiny", {}), ("convnet", {"batch_norm": "synchronised"})])
def test_an_epoch_may_end_with_a_single_sample(pool, alone, network, settings):
    """At 8 pixels the last layers of a ResNet have one value a channel, of which there is no variance."""
    settings = {**SETTINGS, **settings, "network": network, "batch": 10, "epochs": 2}
    (curve, steps), again = lone_on(alone, settings), lone_on(alone, settings)
    assert steps == 6
    assert again == (curve, steps)
    first, second = pool.run(lone_on, settings)
    assert first == second


def lone_on(world, settings):
    train, test = make_sets(n=21)
    result = train_victim(VictimConfig(**settings), train, test, world, 0).result
    return result.curve, result.steps


def test_a_single_sample_leaves_the_statistics_as_they_are(alone):
    trainer = _Trainer(VictimConfig(**SETTINGS), make_sets()[0], alone, 0)
    trainer._learn(np.arange(50), 0)
    before = {name: value.clone() for name, value in trainer.network.state_dict().items()}
    trainer._learn(np.arange(1), 0)
    after = trainer.network.state_dict()
    moved = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert moved == {name for name, _ in trainer.network.named_parameters()}
    assert all(module.training for module in trainer.network.modules())


def refused_on(world, batch):
    try:
        train_victim(VictimConfig(**{**SETTINGS, "batch": batch}), *make_sets(n=20), world, 0)
    except UsageError as error:
        return str(error)
    return "taken"


def test_a_batch_that_leaves_a_rank_a_single_sample_is_refused(pool, alone):
    assert refused_on(alone, 1) == "victim.batch=1 is too small for 1 workers: at least 2"
    assert pool.run(refused_on, 3) == ["victim.batch=3 is too small for 2 workers: at least 4"] * 2


def test_a_batch_larger_than_the_training_set_is_refused(alone):
    assert refused_on(alone, 20) == "taken"
    assert refused_on(alone, 21) == "victim.batch=21 is more than the 20 samples: set it, as in --set victim.batch=20"


def test_an_unknown_network_is_refused(alone):
    with pytest.raises(UsageError, match="unknown network 'resnet-smal': did you mean 'resnet-small'"):
        train_victim(VictimConfig(network="resnet-smal"), *make_sets(), alone, 0)
