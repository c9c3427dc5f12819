"""TUE: classes' deltas are pushed apart, without a network."""

import numpy as np
import pytest
import torch
from toys import ToySource, craft, joined, make_problem, restore, save

from hpcule.config.errors import UsageError
from hpcule.craft.table import configure, find
from hpcule.world.keyed import key, uniform

CLASSES = 3


def make_method(source, world=None, *extra, shards=4, **settings):
    config = configure("tue", "toys", preset=None, file={}, overrides=list(extra)).method
    return find("tue")(config, make_problem(source, world, shards=shards, **settings))


def centres_of(delta, labels):
    return np.stack([delta[labels == k].mean(0) for k in range(labels.max() + 1)])


def slow_ratio(centres, spreads):
    """As it is written down, over ordered pairs."""
    terms = [
        (spreads[k] + spreads[j] + 1e-5) / ((centres[k] - centres[j]).norm() + 1e-5)
        for k in range(len(centres))
        for j in range(len(centres))
        if k != j
    ]
    return torch.stack(terms).mean()


def test_steps_equal_a_slow_reference():
    source = ToySource(40, classes=CLASSES, contrast=0.6)
    found = craft(make_method(source, None, "method.steps=3", "method.step_size=1.5")).delta
    delta = (16 * uniform(key(0, "tue start"), np.arange(40), 192).astype(np.float64) - 8).reshape(40, 3, 8, 8)
    clean, labels = source.samples.astype(np.float64), torch.from_numpy(source.labels)
    for _ in range(3):
        now = torch.from_numpy(delta / 255).flatten(1)
        centres = torch.stack([now[labels == k].mean(0) for k in range(CLASSES)]).requires_grad_()
        spreads = torch.stack([(now[labels == k] - centres[k]).norm(dim=1).mean() for k in range(CLASSES)]).detach()
        slow_ratio(centres, spreads).backward()
        delta = (delta - 1.5 * centres.grad.sign()[labels].numpy().reshape(delta.shape)).clip(-8, 8)
        delta = (clean + delta).clip(0, 255) - clean
    assert (np.abs(found - delta) <= 0.51).mean() > 0.99
    assert (clean + delta == 0).any(), "the box is reached"


def test_centres_move_apart_until_nothing_moves():
    source = ToySource(60, classes=CLASSES)
    outcome = craft(make_method(source))
    steps = [step for step in outcome.steps if step.stage == "separation"]
    assert 10 < len(steps) < 100, "a fixed point, long before the 4,000 steps that there may be"
    ratios = [step.figures["overlap"] for step in steps]
    assert ratios[-1] < 0.1 * ratios[0]
    centres = centres_of(outcome.delta.astype(float), source.labels)
    first = 16 * uniform(key(0, "tue start"), np.arange(60), 192).reshape(60, 3, 8, 8) - 8
    before = centres_of(first, source.labels)
    for k in range(CLASSES):
        for other in range(k):
            apart, then = (np.linalg.norm(c[k] - c[other]) for c in (centres, before))
            assert apart > 3 * then
    again = craft(make_method(source, None, f"method.steps={2 * len(steps)}"))
    np.testing.assert_array_equal(again.delta, outcome.delta)


def test_no_network_is_trained_and_the_seed_is_the_key():
    source = ToySource(40, classes=CLASSES)
    method = make_method(source)
    assert not find("tue").facts.needs_surrogate
    assert not any(isinstance(value, torch.nn.Module) for value in vars(method).values())
    other = craft(make_method(source, seed=1)).delta
    assert (other != craft(method).delta).mean() > 0.2


def test_what_is_published_keeps_budget_and_grid():
    source = ToySource(40, classes=CLASSES, contrast=0.8)
    delta = craft(make_method(source, None, "method.epsilon=7.6")).delta
    published = source.samples.astype(np.int64) + delta
    assert np.abs(delta).max() == 7
    assert (published.min(), published.max()) == (0, 255)


@pytest.mark.parametrize(
    ("setting", "message"),
    [("steps=0", "steps=0: valid are whole numbers from 1"), ("step_size=0", "step_size=0: valid are numbers above 0")],
)
def test_what_makes_no_sense_is_refused(setting, message):
    with pytest.raises(UsageError, match=message):
        make_method(ToySource(40), None, f"method.{setting}")


def craft_on(world, n, shards, dtype):
    torch.set_num_threads(1)
    source = ToySource(n, classes=CLASSES, dtype=np.dtype(dtype))
    return craft(make_method(source, world, f"method.epsilon={8 if dtype == 'uint8' else 30000}", shards=shards))


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_two_ranks_and_one_craft_the_same_bits(pool, alone, dtype):
    expected = craft_on(alone, 61, 3, dtype)
    found = pool.run(craft_on, 61, 3, dtype)
    figures = [[s.figures for s in outcome.steps if s.stage == "separation"] for outcome in (expected, *found)]
    assert figures[0] == figures[1] == figures[2]
    np.testing.assert_array_equal(joined(found).delta, expected.delta)


def test_an_interrupted_run_ends_with_the_same_bits(tmp_path):
    source = ToySource(41, classes=CLASSES)
    expected = craft(make_method(source, shards=3)).delta
    for stop_after in (1, 7):
        folder = tmp_path / str(stop_after)
        folder.mkdir()
        method = make_method(source, shards=3)
        craft(method, stop_after=stop_after)
        save(method, folder)
        rest = craft(restore(make_method(source, shards=3), folder))
        assert rest.steps[0].done == stop_after + 1
        np.testing.assert_array_equal(rest.delta, expected)


def test_finished_shards_are_not_handed_out_again():
    source = ToySource(40, classes=CLASSES)
    whole = craft(make_method(source))
    rest = craft(make_method(source, done=frozenset({0, 2})))
    assert set(rest.deltas) == {1, 3}
    np.testing.assert_array_equal(rest.deltas[3], whole.deltas[3])
