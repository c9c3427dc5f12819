"""CP: a contrastive learner as the surrogate, and noise that lowers its loss."""

import copy

import numpy as np
import pytest
import torch
from slowly import slow_but
from toys import ToySource, craft, joined, make_problem, restore, save

from hpcule.config.errors import UsageError
from hpcule.craft.table import configure, find
from hpcule.data.schedule import Ghost
from hpcule.data.strong import Strong
from hpcule.nets.contrastive_losses import nt_xent
from hpcule.world.keyed import key, uniform

CLASSES = 3
LEARNERS = ["simclr", "moco", "byol"]
SMALL = ["method.surrogate=resnet-tiny", "method.batch=24", "method.ghost=6", "method.queue=40"]
SHORT = {
    "sample": ["method.max_rounds=2", "method.noise_steps=2"],
    "class": ["method.unit=class", "method.max_rounds=2", "method.model_steps=3", "method.noise_batches=2"],
}


def make_method(learner, unit, source, world=None, *extra, shards=4, **settings):
    overrides = [*SMALL, f"method.learner={learner}", "method.learning_rate=0.05", *SHORT[unit], *extra]
    config = configure("cp", "toys", preset=None, file={}, overrides=overrides).method
    return find("cp")(config, make_problem(source, world, shards=shards, **settings))


def unit_interval(source, ids):
    return torch.from_numpy(source.samples[ids]).float() / 255


def draws(ids, *purpose, size=(8, 8)):
    """Both views' draws, as the keys are written down."""
    return [Strong.draw(key(0, "cp", *purpose, view), ids, size, 1.0, 0.2) for view in range(2)]


def trained(learner, unit, source, *extra):
    method = make_method(learner, unit, source, None, *extra)
    craft(method, stop_after=method.steps)
    return method, method.surrogate.frozen()


def settings_of(*overrides):
    return configure("cp", "toys", preset=None, file={}, overrides=list(overrides)).method


# -- settings


def test_the_papers_values():
    sample, by_class = settings_of(), settings_of("method.unit=class")
    assert (sample.max_rounds, sample.model_epochs, sample.noise_steps, sample.step_size) == (200, 1, 5, 0.8)
    assert (by_class.max_rounds, by_class.model_epochs, by_class.model_steps, by_class.noise_batches) == (
        1000, None, 20, 20,
    )  # fmt: skip
    assert (by_class.noise_steps, by_class.step_size) == (1, 0.8)
    rates = {learner: settings_of(f"method.learner={learner}").learning_rate for learner in LEARNERS}
    assert rates == {"simclr": 0.5, "moco": 0.3, "byol": 1.0}
    assert settings_of("method.learner=moco").temperature == 0.2
    byol = settings_of("method.learner=byol")
    assert (byol.noise_steps, byol.step_size) == (1, pytest.approx(0.16))
    assert settings_of("method.learner=byol", "method.unit=class").step_size == pytest.approx(0.8)
    assert settings_of("method.learner=byol", "method.learning_rate=2").learning_rate == 2, "the user's own stands"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("method.learner=simsiam", "valid are simclr, moco, byol"),
        ("method.ghost=1", "ghost=1: valid are whole numbers from 2"),
        ("method.temperature=0", "temperature=0: valid are numbers above 0"),
        ("method.queue=0", "queue=0: valid are whole numbers from 1"),
        ("method.smallest_crop=0", "smallest_crop=0: valid are numbers above 0 up to 1"),
        ("method.target_momentum=1.1", "target_momentum=1.1: valid are numbers from 0 up to 1"),
        ("method.augment=none", "earlier versions had this setting"),
        ("method.separation=-1", "separation=-1: valid are numbers from 0"),
    ],
)
def test_what_makes_no_sense_is_refused(setting, message):
    with pytest.raises(UsageError, match=message):
        settings_of(setting)


def test_a_class_makes_one_step_a_batch():
    with pytest.raises(UsageError, match="noise_steps=2: with unit=class valid is 1"):
        settings_of("method.unit=class", "method.noise_steps=2")
    with pytest.raises(UsageError, match="separation=1: with unit=class valid is 0"):
        settings_of("method.unit=class", "method.separation=1")


# -- views


def test_the_model_sees_two_draws_of_the_same_delta():
    source = ToySource(40, classes=CLASSES)
    method = make_method("simclr", "sample", source)
    ghost = Ghost(1, method.problem.partition.ids(1)[::-1].copy())
    images = (unit_interval(source, ghost.ids) + method.noise.delta(ghost)).clamp(0, 1)
    first, second = method._load(ghost)
    for found, draw in zip((first, second), draws(ghost.ids, "model view", 0), strict=True):
        torch.testing.assert_close(found, draw.apply(images))
    assert ((first - second).abs().amax(dim=(1, 2, 3)) > 0.01).all(), "independent"
    method.batches = method.schedule.steps
    assert (method._load(ghost)[0] != first).any(), "another epoch, another draw"


def test_no_view_is_of_less_than_a_fifth_of_the_image():
    boxes = draws(np.arange(500), "model view", 0, size=(32, 32))[0].box
    areas = (boxes[:, 2] * boxes[:, 3]).double() / 32**2
    assert 0.19 < areas.min() < 0.25
    assert areas.max() > 0.95


# -- sample-wise noise


@pytest.mark.parametrize("learner", LEARNERS)
def test_noise_steps_equal_a_slow_reference(learner):
    source = ToySource(40, classes=CLASSES)
    method, frozen = trained(learner, "sample", source, "method.noise_steps=3")
    network = copy.deepcopy(method.surrogate.network).eval()
    ids = np.array([12, 10, 17, 15, 19])
    clean = unit_interval(source, ids)
    start = method.noise.delta(Ghost(1, ids))
    found = method.noise.descend(frozen, clean, start, torch.zeros(5, dtype=torch.long), ids, 4)
    delta, step = start, method.config.step_size / 255
    for number in range(3):
        seen = (clean + delta).clamp(0, 1).requires_grad_()
        views = [draw.apply(seen) for draw in draws(ids, "noise view", 4, number)]
        network.loss(*network(*views)).backward()
        delta = (seen.detach() - step * seen.grad.sign() - clean).clamp(-8 / 255, 8 / 255)
    assert ((found - delta).abs() < 1e-6).float().mean() > 0.97


def test_the_negatives_are_the_ghost():
    """Each sample's gradient depends on the others of its group, and on no other sample."""
    source = ToySource(40, classes=CLASSES)
    method, frozen = trained("simclr", "sample", source)
    ids = np.arange(6)
    seen, labels = unit_interval(source, ids), torch.zeros(6, dtype=torch.long)
    whole = method.noise.gradient(frozen, seen, seen, labels, ids, (0, 0))
    leaf = seen.clone().requires_grad_()
    embedded = [frozen.embed(frozen.online, draw.apply(leaf)) for draw in draws(ids, "noise view", 0, 0)]
    nt_xent(*embedded, 0.5).backward()
    torch.testing.assert_close(whole, leaf.grad, rtol=1e-3, atol=1e-6)
    alone = method.noise.gradient(frozen, seen[:3], seen[:3], labels[:3], ids[:3], (0, 0))
    assert not torch.allclose(whole[:3], alone, rtol=0.1)


def test_groups_hold_every_sample_once_and_change_from_round_to_round():
    method = make_method("simclr", "sample", ToySource(60, classes=CLASSES))
    ids = method.problem.partition.ids(2)
    groups = [method.noise.groups(ids, number) for number in range(2)]
    for drawn in groups:
        assert sorted(np.concatenate(drawn).tolist()) == ids.tolist()
        assert [len(group) for group in drawn] == [5, 5, 5]
    assert groups[0][0].tolist() != groups[1][0].tolist()


def test_deltas_start_uniform_in_the_budget_and_by_id():
    source = ToySource(40, classes=CLASSES)
    method = make_method("simclr", "sample", source)
    ids = np.arange(20, 30)
    start = method.noise.delta(Ghost(2, ids)) * 255
    values = torch.from_numpy(uniform(key(0, "cp", "start"), ids, 192)).view(10, 3, 8, 8)
    torch.testing.assert_close(start, 16 * values - 8, rtol=0, atol=2**-8)
    assert start.abs().max() > 7.9
    assert start.mean().abs() < 0.5


@pytest.mark.parametrize("learner", slow_but(["byol"], LEARNERS))
def test_steps_lower_the_learners_loss(learner):
    source = ToySource(60, classes=CLASSES)
    method, frozen = trained(learner, "sample", source, "method.noise_steps=15", "method.step_size=0.8")
    ids = np.arange(15)
    clean, labels = unit_interval(source, ids), torch.zeros(15, dtype=torch.long)
    start = method.noise.delta(Ghost(0, ids))
    delta = method.noise.descend(frozen, clean, start, labels, ids, 0)

    def loss(delta):  # over draws that no step has seen
        with torch.no_grad():
            images = (clean + delta).clamp(0, 1)
            pairs = [[draw.apply(images) for draw in draws(ids, "test", number)] for number in range(20)]
            return sum(float(frozen.loss(*frozen(*pair))) for pair in pairs)

    assert loss(delta) < loss(start)
    assert delta.abs().max() <= 8 / 255 + 1e-7


def test_the_error_is_of_views_that_are_not_nearest_to_each_other():
    source = ToySource(40, classes=CLASSES)
    method, frozen = trained("moco", "sample", source)
    ids = np.arange(10)
    clean = unit_interval(source, ids)
    with torch.no_grad():
        pair = [draw.apply(clean) for draw in draws(ids, "noise view", 1, method.noise.steps)]
        queries, keys = frozen.embed(frozen.online, pair[0]), frozen.embed(frozen.target, pair[1])
    wrong = sum(max(range(10), key=lambda j, i=i: float(queries[i] @ keys[j])) != i for i in range(10))
    found = method.noise.count_errors(frozen, clean, torch.zeros_like(clean), None, ids, 1)
    assert found == wrong


def test_class_separation_is_added_to_the_mean_loss():
    source = ToySource(40, classes=CLASSES)
    method, frozen = trained("simclr", "sample", source, "method.separation=2")
    ids = np.arange(9)
    clean, labels = method.noise.load(0, ids)
    np.testing.assert_array_equal(labels, source.labels[ids])
    seen = (clean + method.noise.delta(Ghost(0, ids))).clamp(0, 1)
    found = method.noise.gradient(frozen, clean, seen, labels, ids, (0, 0)) / 9
    leaf = seen.clone().requires_grad_()
    delta = (leaf - clean).flatten(1)
    centres = torch.stack([delta[labels == k].mean(0) for k in range(3)])
    spreads = [float((delta[labels == k] - centres[k]).norm(dim=1).mean().detach()) for k in range(3)]
    pairs = [(k, j) for k in range(3) for j in range(3) if k != j]
    ratio = sum((spreads[k] + spreads[j] + 1e-5) / ((centres[k] - centres[j]).norm() + 1e-5) for k, j in pairs) / 6
    embedded = [frozen.embed(frozen.online, draw.apply(leaf)) for draw in draws(ids, "noise view", 0, 0)]
    (nt_xent(*embedded, 0.5) / 9 + 2 * ratio).backward()
    torch.testing.assert_close(found, leaf.grad, rtol=1e-3, atol=1e-6)


@pytest.mark.slow
def test_sample_wise_needs_no_labels():
    needs = find("cp").needs_labels
    assert not needs(settings_of())
    assert needs(settings_of("method.unit=class"))
    assert needs(settings_of("method.separation=1"))
    labelled, without = ToySource(40, classes=CLASSES), ToySource(40, classes=CLASSES, labelled=False)
    found = craft(make_method("simclr", "sample", without)).delta
    np.testing.assert_array_equal(found, craft(make_method("simclr", "sample", labelled)).delta)


# -- class-wise noise


def test_a_class_moves_by_the_sign_of_the_sum_over_all_ghosts():
    source = ToySource(40, classes=CLASSES)
    method, frozen = trained("simclr", "class", source)
    batch = method.noise.batches(0)[0]
    assert len(batch) == 5
    before = method.noise._deltas.clone()
    next(method.noise.sweep(frozen, 0))
    sums = torch.zeros_like(before)
    for ghost in batch:
        labels = source.labels[ghost.ids]
        seen = (unit_interval(source, ghost.ids) + before[labels]).clamp(0, 1).requires_grad_()
        embedded = [frozen.embed(frozen.online, d.apply(seen)) for d in draws(ghost.ids, "noise view", 0, 0)]
        nt_xent(*embedded, 0.5).backward()
        for gradient, label in zip(seen.grad, labels, strict=True):
            sums[label] += gradient
    expected = (before - 0.8 / 255 * sums.sign()).clamp(-8 / 255, 8 / 255)
    assert ((method.noise._deltas - expected).abs() < 1e-6).float().mean() > 0.98


def test_the_noise_walks_on_from_round_to_round():
    method = make_method("simclr", "class", ToySource(60, classes=CLASSES), None, "method.noise_batches=4")
    schedule = method.noise._schedule
    assert 1 < schedule.steps < 4
    walked = [batch for number in range(2) for batch in method.noise.batches(number)]
    for step, batch in enumerate(walked):
        assert [g.ids.tolist() for g in batch] == [g.ids.tolist() for g in schedule.at(step)]


# -- target branch and queue


def test_the_queue_takes_a_batchs_keys_in_ghost_order():
    source = ToySource(40, classes=CLASSES)
    method = make_method("moco", "sample", source)
    surrogate, batch = method.surrogate, method.schedule.at(0)
    network = copy.deepcopy(surrogate.network)
    surrogate.train(batch, method._load, 0.05)
    keys = []
    for ghost in batch:  # BatchNorm over each ghost
        keys.append(network(*method._load(ghost))[1])
    expected = torch.cat([*keys, network.queue])[:40]
    torch.testing.assert_close(surrogate.network.queue, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("learner", ["moco", "byol"])
def test_target_statistics_are_updated_in_ghost_order(learner):
    source = ToySource(40, classes=CLASSES)
    method = make_method(learner, "sample", source, None, "method.batch=25")
    surrogate, batch = method.surrogate, method.schedule.at(0)
    assert {len(ghost.ids) for ghost in batch} == {5}
    network = copy.deepcopy(surrogate.network)
    weights = [parameter.clone() for parameter in network.target.parameters()]
    surrogate.train(batch, method._load, 0.05)
    for ghost in batch:
        network(*method._load(ghost))
    for (name, found), expected in zip(surrogate.network.target.named_buffers(), network.target.buffers(), strict=True):
        if "running" in name:
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    online = surrogate.network.online.parameters()
    momentum = method.config.target_momentum
    for own, old, new in zip(surrogate.network.target.parameters(), weights, online, strict=True):
        torch.testing.assert_close(own, momentum * old + (1 - momentum) * new)


@pytest.mark.parametrize("learner", LEARNERS)
def test_a_frozen_learner_equals_evaluation(learner):
    source = ToySource(40, classes=CLASSES)
    method, frozen = trained(learner, "sample", source)
    images = unit_interval(source, np.arange(10))
    with torch.no_grad():
        for found, expected in zip(
            frozen(images, images.flip(3)), method.surrogate.network.eval()(images, images.flip(3)), strict=True
        ):
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    assert not any(isinstance(layer, torch.nn.BatchNorm2d) for layer in frozen.modules())
    assert not any(parameter.requires_grad for parameter in frozen.parameters())


@pytest.mark.parametrize("learner", slow_but(["simclr"], LEARNERS))
def test_bf16_runs(learner):
    outcome = craft(make_method(learner, "sample", ToySource(40, classes=CLASSES), autocast=True))
    assert 1 < np.abs(outcome.delta).max() <= 8


# -- whole runs

RUNS = [("simclr", "sample"), ("moco", "class"), ("byol", "sample")]


def craft_on(world, learner, unit, n, shards):
    torch.set_num_threads(1)
    return craft(make_method(learner, unit, ToySource(n, classes=CLASSES), world, shards=shards))


def published(outcome):
    return outcome.delta if outcome.shared is None else outcome.shared


@pytest.mark.slow
@pytest.mark.parametrize(("learner", "unit"), RUNS)
def test_two_ranks_and_one_craft_the_same_bits(pool, alone, learner, unit):
    expected = craft_on(alone, learner, unit, 61, 3)
    found = pool.run(craft_on, learner, unit, 61, 3)
    figures = [[step.figures for step in outcome.steps if step.stage == "round"] for outcome in (expected, *found)]
    assert figures[0] == figures[1] == figures[2]
    np.testing.assert_array_equal(published(joined(found)), published(expected))
    assert 1 < np.abs(published(expected)).max() <= 8


@pytest.mark.slow
@pytest.mark.parametrize(("learner", "unit"), RUNS)
def test_an_interrupted_run_ends_with_the_same_bits(tmp_path, learner, unit):
    source = ToySource(40, classes=CLASSES)
    expected = published(craft(make_method(learner, unit, source)))
    for extra in (-1, 1):  # amid the model phase, and amid the noise phase
        folder = tmp_path / str(extra)
        folder.mkdir()
        method = make_method(learner, unit, source)
        craft(method, stop_after=method.steps + extra)
        save(method, folder)
        again = restore(make_method(learner, unit, source), folder)
        np.testing.assert_array_equal(published(craft(again)), expected)


def test_what_is_published_keeps_budget_and_grid():
    source = ToySource(40, classes=CLASSES, contrast=0.8)
    delta = craft(make_method("simclr", "sample", source, None, "method.epsilon=7.6")).delta
    published = source.samples.astype(np.int64) + delta
    assert np.abs(delta).max() == 7
    assert (published.min(), published.max()) == (0, 255)
