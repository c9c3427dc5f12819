"""GUE: one move of the game against a slow one, and what holds for every method."""

import copy

import numpy as np
import pytest
import torch
from slowly import slow_but
from toys import ToySource, craft, joined, make_problem, restore, save

from hpcule.config.errors import UsageError
from hpcule.craft.table import configure, find
from hpcule.store.budget import magnitude

CLASSES = 3
SMALL = ["method.surrogate=convnet", "method.batch=24", "method.ghost=6", "method.epochs=2", "method.inner_steps=2"]


def make_method(source, world=None, *extra, shards=4, **settings):
    config = configure("gue", "toys", preset=None, file={}, overrides=[*SMALL, *extra]).method
    return find("gue")(config, make_problem(source, world, shards=shards, **settings))


def cross_entropy(logits, labels):
    return -logits.log_softmax(1)[torch.arange(len(labels)), labels].mean()


def worst_of_the_others(logits, labels):
    """Mean over the samples of the largest cross-entropy toward another label, label by label."""
    losses = []
    for row, label in zip(logits.log_softmax(1), labels, strict=True):
        losses.append(max(-row[other] for other in range(CLASSES) if other != label))
    return torch.stack(losses).mean()


def slow_move(method, clean, labels, *, inner_steps=2, inner_rate=1e-4, drive=1.5, rate=0.01, generator_rate=0.1):
    """The parameters of both players after one batch that is a single ghost, and the weight of grad q."""
    follower, generator = copy.deepcopy(method.follower), copy.deepcopy(method.generator)
    ahead = copy.deepcopy(follower)
    optimizer = torch.optim.Adam(ahead.parameters(), lr=inner_rate)
    for _ in range(inner_steps):
        optimizer.zero_grad()
        cross_entropy(ahead(clean + 8 / 255 * generator(clean).detach()), labels).backward()
        optimizer.step()
    ahead.requires_grad_(False)
    both = [*follower.parameters(), *generator.parameters()]
    leader = worst_of_the_others(follower(clean), labels)
    perturbed = clean + 8 / 255 * generator(clean)
    lag = cross_entropy(follower(perturbed), labels) - cross_entropy(ahead(perturbed), labels)
    of_leader = torch.autograd.grad(leader, both, allow_unused=True, materialize_grads=True)
    of_lag = torch.autograd.grad(lag, both)
    product = sum((a * b).sum() for a, b in zip(of_leader, of_lag, strict=True))
    force = (drive - product / sum(part.square().sum() for part in of_lag)).relu().item()
    count = len(list(follower.parameters()))
    moved = []
    for number, (parameter, a, b) in enumerate(zip(both, of_leader, of_lag, strict=True)):
        moved.append(parameter.detach() - (rate if number < count else generator_rate) * (a + force * b))
    return moved, {"leader": leader.item(), "lag": lag.item(), "force": force}


@pytest.mark.parametrize("drive", [1.5, 1e-6])
def test_a_batch_moves_both_players_as_the_slow_game_does(drive):
    source = ToySource(24, classes=CLASSES)
    settings = ["method.ghost=24", "method.inner_rate=0.01", f"method.drive={drive}"]
    method = make_method(source, None, *settings, shards=1)
    batch = method.schedule.at(0)
    assert [len(ghost.ids) for ghost in batch] == [24]
    for ghost in (batch[0], method.schedule.at(1)[0]):
        clean = torch.from_numpy(source.samples[ghost.ids]).float() / 255
        labels = torch.from_numpy(source.labels[ghost.ids])
        expected, figures = slow_move(method, clean, labels, inner_rate=0.01, drive=drive)
        told = method._play([ghost])
        for name, value in figures.items():
            assert told[name] == pytest.approx(value, rel=2e-3, abs=1e-5), name
        found = [*method.follower.parameters(), *method.generator.parameters()]
        for parameter, value in zip(found, expected, strict=True):
            torch.testing.assert_close(parameter.detach(), value, rtol=1e-3, atol=1e-5)
    assert told["lag"] > 0, "theta' is ahead"


def test_ghosts_of_a_batch_count_by_their_samples():
    """A batch of equal samples has the gradients of one of them, however it is cut."""
    source = ToySource(23, classes=CLASSES)
    source.samples[:], source.labels[:] = source.samples[0], source.labels[0]
    whole = make_method(source, None, "method.ghost=23", shards=1)
    cut = make_method(source, None, "method.ghost=5", shards=3)
    told = [method._play(method.schedule.at(0)) for method in (whole, cut)]
    assert len(cut.schedule.at(0)) > 3
    for name in ("leader", "follower"):
        assert told[0][name] == pytest.approx(told[1][name], rel=1e-3)


def test_a_single_sample_is_normalised_by_itself():
    """At 8 pixels the last layers of a ResNet have one value a channel, of which torch takes no variance."""
    source = ToySource(40, classes=CLASSES)
    method = make_method(source, None, "method.surrogate=resnet-tiny")
    one = torch.from_numpy(source.samples[:1]).float() / 255
    found = method._logits(method.follower, one)
    torch.testing.assert_close(found, method.follower(torch.cat([one, one]))[:1])
    assert torch.isfinite(found).all()


def test_the_answer_is_the_generators_for_each_sample_alone():
    source = ToySource(40, classes=CLASSES)
    method = make_method(source)
    delta = craft(method).delta
    for number in range(0, 40, 7):
        clean = torch.from_numpy(source.samples[number : number + 1]).float()
        with torch.no_grad():
            expected = (8 * method.generator(clean / 255)).round()
        change = (clean + expected).clamp(0, 255) - clean
        assert (change[0].numpy() == delta[number]).mean() > 0.98


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_budget_and_the_box_are_kept(dtype):
    source = ToySource(40, classes=CLASSES, contrast=0.45, dtype=dtype)
    epsilon = 8 if dtype == np.uint8 else 8 * 257
    delta = craft(make_method(source, None, f"method.epsilon={epsilon}")).delta.astype(int)
    assert 0.1 * epsilon < magnitude(delta, "linf").max() <= epsilon
    published = source.samples + delta
    assert published.min() >= 0
    assert published.max() <= source.levels


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("method.epochs=0", "epochs=0: valid are whole numbers from 1"),
        ("method.inner_steps=0", "inner_steps=0: valid are whole numbers from 1"),
        ("method.drive=0", "drive=0: valid are numbers above 0"),
        ("method.generator_rate=-1", "generator_rate=-1: valid are numbers above 0"),
        ("method.epsilon=0", "epsilon=0: valid are"),
        ("method.unit=class", "unknown setting"),
    ],
)
def test_what_makes_no_sense_is_refused(setting, message):
    with pytest.raises(UsageError, match=message):
        make_method(ToySource(40), None, setting)


def craft_on(world, n, shards):
    torch.set_num_threads(1)
    return craft(make_method(ToySource(n, classes=CLASSES), world, shards=shards))


@pytest.mark.slow
@pytest.mark.parametrize(("n", "shards"), [(61, 3), (90, 4)])
def test_two_ranks_and_one_craft_the_same_bits(pool, alone, n, shards):
    expected = craft_on(alone, n, shards).delta
    np.testing.assert_array_equal(joined(pool.run(craft_on, n, shards)).delta, expected)
    assert 1 <= np.abs(expected).max() <= 8


@pytest.mark.parametrize("steps", slow_but([3], [1, 3, 5]))
def test_an_interrupted_run_ends_with_the_same_bits(tmp_path, steps):
    source = ToySource(40, classes=CLASSES)
    expected = craft(make_method(source)).delta
    method = make_method(source)
    craft(method, stop_after=steps)
    save(method, tmp_path)
    again = restore(make_method(source), tmp_path)
    np.testing.assert_array_equal(craft(again).delta, expected)
