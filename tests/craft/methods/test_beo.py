"""BEO: what is ascended, with which steps, and that nothing else moves a sample."""

import numpy as np
import pytest
import torch
from slow_posterior import estimate_and_gradients, slow_errors
from slowly import slow_but
from toys import ToySource, craft, joined, make_problem, restore, save

from hpcule.config.errors import HpculeError, UsageError
from hpcule.craft.parts.ascent import Ascent
from hpcule.craft.parts.surrogate import features
from hpcule.craft.table import configure, find
from hpcule.data.schedule import Ghost
from hpcule.nets import build
from hpcule.store.budget import magnitude

CLASSES = 3
SMALL = ["method.surrogate=resnet-tiny", "method.batch=24", "method.ghost=6", "method.outer_steps=3", "method.epochs=2"]


def make_method(source, world=None, *extra, shards=4, **settings):
    config = configure("beo", "toys", preset=None, file={}, overrides=[*SMALL, *extra]).method
    return find("beo")(config, make_problem(source, world, shards=shards, **settings))


def frozen_network(seed=0):
    network = build("convnet", channels=3, classes=CLASSES, size=(8, 8), seed=seed).eval()
    return network.requires_grad_(False)


def until(method, stage, number):
    """Run a method up to its n-th step of a stage."""
    steps = (event for event in method.run() if event.stage == stage)
    for _ in range(number):
        next(steps)


# -- the estimate, and the steps along its gradient


def test_the_estimate_rises_from_step_to_step_of_features_that_stay():
    problem = make_problem(ToySource(60, classes=CLASSES))
    ascent, frozen = Ascent(problem, epsilon=32, step_size=4, flat=1.0), frozen_network()
    estimates = []
    for number in range(9):
        own = torch.cat([ascent.features(frozen, shard) for shard in problem.owned])
        estimate, gradients = estimate_and_gradients(own, problem)
        estimates.append(estimate)
        for _ in ascent.sweep(frozen, gradients, number):
            pass
    assert (np.diff(estimates) > 0).mean() > 0.8
    assert estimates[-1] > estimates[0] + 0.05


def test_one_step_is_adams_along_the_slow_gradient():
    """Of the whole chain: from published pixels through the surrogate and all pairs of samples."""
    source = ToySource(30, classes=CLASSES, contrast=0.45)
    # The whole set at once: after smaller steps the surrogate is so sure that only rounding is left of the gradient.
    settings = ["method.surrogate=convnet", "method.step_size=1.5", "method.batch=30", "method.ghost=15"]
    method = make_method(source, None, *settings)
    moving = torch.from_numpy(source.samples).float().div(255)
    clean = moving.clone()
    optimizer = torch.optim.Adam([moving.requires_grad_()], lr=1.5 / 255, maximize=True)
    events = method.run()
    for outer in range(2):
        while method.gradients is None:
            next(events)
        frozen = method.surrogate.frozen()
        with torch.no_grad():
            change = (255 * (moving - clean)).round().clamp(-8, 8)
            seen = (clean + change / 255).clamp(0, 1)
        leaf = seen.requires_grad_()
        slow_errors(features(frozen, leaf).double(), source.labels).sum().backward()
        moving.grad = leaf.grad
        optimizer.step()
        with torch.no_grad():
            moving.copy_(moving.clamp(clean - 8 / 255, clean + 8 / 255).clamp(0, 1))
        for _ in range(4):
            next(events)
        delta = torch.cat([part.delta for part in method.ascent._shards.values()])
        expected = (moving - clean).detach()
        assert ((delta - expected).abs() < 0.02 / 255).float().mean() > 0.97, outer
        assert delta.abs().max() > 1.4 / 255
        next(events)


def test_a_sample_without_a_gradient_stays_as_it_is():
    """No weight decay, which would darken images."""
    problem = make_problem(ToySource(60, classes=CLASSES))
    ascent = Ascent(problem, epsilon=8, step_size=2, flat=1.0)
    frozen = frozen_network()
    for number in range(3):
        for _ in ascent.sweep(frozen, {shard: torch.zeros(15, 128) for shard in problem.owned}, number):
            pass
    assert all((result.delta == 0).all() for result in ascent.results())


def test_a_gradient_that_is_not_finite_is_refused():
    problem = make_problem(ToySource(60, classes=CLASSES))
    ascent = Ascent(problem, epsilon=8, step_size=2, flat=1.0)
    with pytest.raises(HpculeError, match="not finite"):
        list(ascent.sweep(frozen_network(), {shard: torch.full((15, 128), torch.nan) for shard in range(4)}, 0))


# -- the surrogates


def test_the_surrogate_is_trained_on_what_would_be_published():
    source = ToySource(40, classes=CLASSES, contrast=0.45)
    method = make_method(source)
    ids = method.problem.partition.ids(1)
    for levels, published in ((0.4, 0), (5.6, 6), (-2.5, -2), (20, 8)):
        method.ascent._shards[1].delta.fill_(levels / 255)
        seen, labels = method._load(Ghost(1, ids[::-1].copy()))
        expected = np.clip(source.samples[ids[::-1]].astype(int) + published, 0, 255)
        np.testing.assert_array_equal((seen * 255).round().int().numpy(), expected)
        np.testing.assert_array_equal(labels.numpy(), source.labels[ids[::-1]])
        own = features(frozen_network(), method._load(Ghost(1, ids))[0])
        torch.testing.assert_close(method.ascent.features(frozen_network(), 1), own)


def test_every_step_has_a_surrogate_of_its_own():
    source = ToySource(40, classes=CLASSES)
    method = make_method(source)
    starts, rates = [], []

    def weights():
        return torch.cat([parameter.detach().flatten() for parameter in method.surrogate.network.parameters()])

    for outer in range(2):
        starts.append(weights())
        assert not method.surrogate.state()["optimizer"]["state"], "no momentum from the surrogate before"
        train = method.surrogate.train
        method.surrogate.train = lambda batch, load, rate, train=train: rates.append(rate) or train(batch, load, rate)
        for event in method.run():
            if event.stage == "noise" and event.done == event.total:
                break
        assert (weights() != starts[-1]).any()
        method.outer, method.trained, method.gradients = outer + 1, 0, None
        method.surrogate = method._untrained()
    assert (starts[0] != starts[1]).float().mean() > 0.5
    assert (make_method(source).surrogate.network.linear.weight == method_start(source)).all()
    steps = np.arange(method.steps)
    np.testing.assert_allclose(rates, np.tile(0.05 * (1 + np.cos(np.pi * steps / method.steps)), 2))


def method_start(source):
    """The first surrogate's last layer, of a method that is made once more."""
    torch.manual_seed(7)
    return make_method(source).surrogate.network.linear.weight


# -- the run


def test_the_journal_tells_the_estimate_of_each_step():
    steps = craft(make_method(ToySource(40, classes=CLASSES))).steps
    told = [step.figures for step in steps if "bayes_error" in step.figures]
    assert [figures["step"] for figures in told] == [0, 1, 2]
    assert all(0 <= figures["bayes_error"] <= 1 for figures in told)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_budget_and_the_box_are_kept(dtype):
    source = ToySource(40, classes=CLASSES, contrast=0.45, dtype=dtype)
    scale = 1 if dtype == np.uint8 else 257
    delta = craft(make_method(source, None, f"method.epsilon={8 * scale}", "method.outer_steps=4")).delta.astype(int)
    assert magnitude(delta, "linf").max() == 8 * scale
    published = source.samples + delta
    assert published.min() >= 0
    assert published.max() <= source.levels


def test_steps_are_in_proportion_to_the_budget_and_reach_it():
    def step(*overrides):
        return configure("beo", "toys", preset=None, file={}, overrides=overrides).method.step_size

    assert step() == 0.001 * 255
    assert step("method.epsilon=16") == 2 * step()
    assert step("method.outer_steps=4") == 4
    assert step("method.outer_steps=4", "method.step_size=0.1") == 0.1


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("method.outer_steps=0", "outer_steps=0: valid are whole numbers from 1"),
        ("method.epochs=0", "epochs=0: valid are whole numbers from 1"),
        ("method.bandwidth=0", "bandwidth=0: valid are numbers above 0"),
        ("method.bandwidth=.inf", "bandwidth=inf: expected a finite number"),
        ("method.step_size=-1", "step_size=-1: valid are numbers above 0"),
        ("method.learning_rate=0", "learning_rate=0: valid are numbers above 0"),
        ("method.epsilon=0", "epsilon=0: valid are"),
        ("method.unit=class", "unknown setting"),
        ("method.surrogate=resnet19", "resnet18"),
    ],
)
def test_what_makes_no_sense_is_refused(setting, message):
    with pytest.raises(UsageError, match=message):
        make_method(ToySource(40), None, setting)


def craft_on(world, n, shards):
    torch.set_num_threads(1)
    return craft(make_method(ToySource(n, classes=CLASSES), world, shards=shards))


@pytest.mark.parametrize(("n", "shards"), slow_but([(61, 3)], [(61, 3), (90, 4)]))
def test_two_ranks_and_one_craft_the_same_bits(pool, alone, n, shards):
    expected = craft_on(alone, n, shards).delta
    np.testing.assert_array_equal(joined(pool.run(craft_on, n, shards)).delta, expected)
    assert 1 < np.abs(expected).max() <= 8


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "number"), [("model", 3), ("features", 6), ("kernels", 9), ("kernels", 16), ("noise", 4), ("noise", 6)]
)
def test_an_interrupted_run_ends_with_the_same_bits(tmp_path, stage, number):
    """Also between two shards' steps: the samples that have moved already must not enter the others' gradients."""
    source = ToySource(40, classes=CLASSES)
    expected = craft(make_method(source)).delta
    method = make_method(source)
    until(method, stage, number)
    save(method, tmp_path)
    again = restore(make_method(source), tmp_path)
    np.testing.assert_array_equal(craft(again).delta, expected)


def test_finished_shards_are_left_alone():
    source = ToySource(40, classes=CLASSES)
    outcome = craft(make_method(source, None, done=frozenset({1})))
    assert set(outcome.deltas) == {0, 2, 3}
