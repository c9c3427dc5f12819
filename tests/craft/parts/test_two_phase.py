from __future__ import annotations

import numpy as np
import pytest
import torch
from slowly import slow_but
from torch.nn import functional
from toys import ToySource, craft, joined, make_problem, restore, save

from hpcule.config.errors import HpculeError
from hpcule.craft.methods.em import EMConfig, ErrorMinimizing
from hpcule.craft.parts.noise import _stratified
from hpcule.craft.parts.surrogate import logits_of
from hpcule.data.schedule import Ghost

CLASSES = 3
SMALL = {"surrogate": "resnet-tiny", "batch": 24, "ghost": 6, "model_steps": 2, "max_rounds": 2, "stop_error": -1.0}


def make_method(source, world=None, *, shards=4, done=frozenset(), exact=True, **settings):
    config = EMConfig(**{**SMALL, **settings}).resolved()
    return ErrorMinimizing(config, make_problem(source, world, shards=shards, done=done, exact=exact))


def trained(source, steps=3, **settings):
    """A method whose surrogate has seen some batches of clean samples, and its frozen copy."""
    method = make_method(source, model_steps=steps, **settings)
    craft(method, stop_after=steps)
    return method, method.surrogate.frozen()


def unit(source, ids):
    return torch.from_numpy(source.samples[ids]).float() / 255, torch.from_numpy(source.labels[ids])


def slow_descent(frozen, clean, delta, label, steps, step, epsilon, direction=-1):
    """Signed steps on one sample [C, H, W]: clip to the box, step, clip to the budget."""
    for _ in range(steps):
        seen = (clean + delta).clamp(0, 1).requires_grad_()
        functional.cross_entropy(logits_of(frozen, seen[None]), label[None]).backward()
        moved = seen.detach() + direction * step * seen.grad.sign()
        delta = (moved - clean).clamp(-epsilon, epsilon)
    return delta


def same_share(found, expected, tolerance=1e-6):
    return ((found - expected).abs() <= tolerance).float().mean().item()


@pytest.mark.parametrize("contrast", [0.2, 0.8], ids=["inside the box", "at its walls"])
def test_signed_steps_equal_a_slow_reference(contrast):
    source = ToySource(40, classes=CLASSES, contrast=contrast)
    method, frozen = trained(source, noise_steps=4, step_size=1.5, epsilon=5)
    clean, labels = unit(source, np.arange(12))
    start = (torch.rand(clean.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1) * (5 / 255)
    before = clean.clone(), start.clone()
    found = method.noise.descend(frozen, clean, start, labels, np.arange(12), 0)
    assert (clean == before[0]).all()
    assert (start == before[1]).all()
    rows = zip(clean, start, labels, strict=True)
    expected = torch.stack([slow_descent(frozen, x, d, y, 4, 1.5 / 255, 5 / 255) for x, d, y in rows])
    # A gradient of nearly zero may have another sign in a batch than alone.
    assert same_share(found, expected) > 0.995
    assert found.abs().max() <= 5 / 255 + 1e-7
    if contrast > 0.5:
        assert ((clean + start < 0) | (clean + start > 1)).any()


def test_steps_lower_the_loss_of_the_true_label():
    source = ToySource(40, classes=CLASSES)
    method, frozen = trained(source, noise_steps=10)
    clean, labels = unit(source, np.arange(40))
    delta = method.noise.descend(frozen, clean, torch.zeros_like(clean), labels, np.arange(len(clean)), 0)
    with torch.no_grad():
        before = functional.cross_entropy(logits_of(frozen, clean), labels, reduction="none")
        after = functional.cross_entropy(logits_of(frozen, clean + delta), labels, reduction="none")
    assert (after < before).all()
    assert delta.abs().mean() > 0.8 * 8 / 255


def test_a_sweep_moves_every_sample_once_and_counts_errors():
    source = ToySource(150, classes=CLASSES)  # shards of 75: more than one tile
    method, frozen = trained(source, noise_steps=2, shards=2)
    steps = list(method.noise.sweep(frozen, 0))
    assert [(step.stage, step.done, step.total) for step in steps] == [("noise", 1, 2), ("noise", 2, 2)]
    wrong = 0
    for shard in range(2):
        ids = method.problem.partition.ids(shard)
        clean, labels = unit(source, ids)
        expected = method.noise.descend(frozen, clean, torch.zeros_like(clean), labels, np.arange(len(clean)), 0)
        # At rest a delta is float16, in levels.
        assert same_share(method.noise.delta(Ghost(shard, ids)), expected, 2**-8 / 255) > 0.999
        with torch.no_grad():
            wrong += (logits_of(frozen, (clean + expected).clamp(0, 1)).argmax(1) != labels).sum().item()
    assert method.noise.error() == pytest.approx(wrong / 150, abs=2 / 150)
    assert list(method.noise.sweep(frozen, 0)), "a sweep that is done again moves nothing"
    again = method.noise.delta(Ghost(shard, ids))
    assert same_share(again, expected, 2**-8 / 255) > 0.999


def test_a_ghosts_deltas_are_those_of_its_samples():
    source = ToySource(40, classes=CLASSES)
    method, frozen = trained(source, noise_steps=1)
    list(method.noise.sweep(frozen, 0))
    whole = method.noise.delta(Ghost(2, method.problem.partition.ids(2)))
    torch.testing.assert_close(method.noise.delta(Ghost(2, np.array([27, 20, 23]))), whole[[7, 0, 3]])


def test_one_class_wise_batch_equals_a_slow_reference():
    source = ToySource(40, classes=CLASSES)
    source.labels = np.where(np.arange(40) % 5 == 0, 1, 0).astype(np.int64)
    source.labels[33] = 2  # one sample of the last class, in one batch alone
    method, frozen = trained(source, unit="class", subset=1.0, batch=12, step_size=2.5, epsilon=4)
    noise = method.noise
    everyone = Ghost(0, np.array([0, 1, 33]))  # of classes 1, 0 and 2
    batches = noise._schedule.epoch(0)
    assert len(batches) == 4
    current = torch.zeros(CLASSES, *source.shape)
    for batch, _ in zip(batches, noise.sweep(frozen, 0), strict=True):
        ids = np.concatenate([ghost.ids for ghost in batch])
        clean, labels = unit(source, ids)
        previous = current
        moved = [
            slow_descent(frozen, x, previous[y], y, 1, 2.5 / 255, 4 / 255) for x, y in zip(clean, labels, strict=True)
        ]
        expected = previous.clone()
        for label in range(CLASSES):
            own = [delta for delta, y in zip(moved, labels, strict=True) if y == label]
            if own:
                expected[label] = torch.stack(own).mean(0).clamp(-4 / 255, 4 / 255)
        current = noise.delta(everyone)[[1, 0, 2]]
        assert same_share(current, expected) > 0.98
        if 33 not in ids:
            assert (current[2] == previous[2]).all(), "a class that is absent keeps its delta"
        else:
            assert (current[2] != previous[2]).any()
    assert noise.error() * 40 == round(noise.error() * 40)


def test_the_subset_has_the_same_share_of_every_class():
    source = ToySource(100, classes=CLASSES)
    source.labels = np.repeat([0, 1, 2], [70, 28, 2]).astype(np.int64)
    problem = make_problem(source)
    chosen = _stratified(problem, 0.2)
    assert np.bincount(source.labels[chosen]).tolist() == [14, 6, 1]
    assert (np.diff(chosen) > 0).all()
    assert _stratified(problem, 1.0).tolist() == list(range(100))
    assert _stratified(make_problem(source, seed=1), 0.2).tolist() != chosen.tolist()
    np.testing.assert_array_equal(_stratified(make_problem(source, shards=7), 0.2), chosen)


def test_class_wise_noise_walks_through_the_subset_alone():
    source = ToySource(60, classes=CLASSES)
    method = make_method(source, unit="class", subset=0.2)
    walked = {int(i) for batch in method.noise._schedule.epoch(3) for ghost in batch for i in ghost.ids}
    assert walked == set(_stratified(method.problem, 0.2).tolist())


def test_the_model_sees_samples_plus_delta_beyond_the_box():
    source = ToySource(40, classes=CLASSES, contrast=0.8)
    method = make_method(source)
    list(method.noise.sweep(method.surrogate.frozen(), 0))
    seen = []
    method.surrogate.train = lambda batch, load, rate: seen.extend((ghost, *load(ghost)) for ghost in batch)
    next(method.run())
    for ghost, inputs, labels in seen:
        clean, expected = unit(source, ghost.ids)
        torch.testing.assert_close(inputs, clean + method.noise.delta(ghost))
        assert (labels == expected).all()
    assert min(inputs.min() for _, inputs, _ in seen) < 0


def stages(outcome):
    return [(step.stage, step.done) for step in outcome.steps]


def test_model_and_noise_phases_alternate_until_the_last_round():
    source = ToySource(40, classes=CLASSES)
    outcome = craft(make_method(source, shards=2, noise_steps=1))
    one = [("model", 1), ("model", 2), ("noise", 1), ("noise", 2)]
    assert stages(outcome) == [*one, ("round", 1), *one, ("round", 2)]


def test_the_walk_through_the_data_goes_on_from_round_to_round():
    source = ToySource(60, classes=CLASSES)
    method = make_method(source, noise_steps=1, max_rounds=3)
    seen = []
    train = method.surrogate.train

    def record(batch, load, rate):
        seen.append([ghost.ids.tolist() for ghost in batch])
        train(batch, load, rate)

    method.surrogate.train = record
    craft(method)
    expected = [[ghost.ids.tolist() for ghost in method.schedule.at(step)] for step in range(6)]
    assert seen == expected
    epoch = method.schedule.steps
    assert 1 < epoch < 6
    assert seen[0] != seen[epoch], "the second epoch is shuffled anew"


def test_a_surrogate_that_has_learnt_ends_the_run():
    source = ToySource(40, classes=CLASSES)
    outcome = craft(make_method(source, shards=2, noise_steps=1, stop_error=1.0))
    assert stages(outcome)[-1] == ("round", 1)
    assert outcome.steps[-1].figures["error"] <= 1.0


def test_what_is_handed_out_keeps_budget_and_grid():
    source = ToySource(40, classes=CLASSES, contrast=0.8)
    delta = craft(make_method(source, epsilon=7.6)).delta
    published = source.samples.astype(np.int64) + delta
    assert np.abs(delta).max() == 7
    assert published.min() >= 0
    assert published.max() <= 255
    assert np.abs(delta).mean() > 3


def test_a_class_delta_is_shared_and_not_clipped_to_any_sample():
    source = ToySource(40, classes=CLASSES, contrast=0.8)
    outcome = craft(make_method(source, unit="class", epsilon=7.6, subset=1.0, noise_steps=10))
    assert outcome.shared.shape == (CLASSES, *source.shape)
    assert np.abs(outcome.shared).max() == 7
    np.testing.assert_array_equal(outcome.group, source.labels)
    assert not outcome.deltas
    published = source.samples.astype(np.int64) + outcome.shared[outcome.group]
    assert published.max() > 255


def errors(outcome):
    return [step.figures["error"] for step in outcome.steps if step.stage == "round"]


def craft_on(world, n, shards, settings):
    return craft(make_method(ToySource(n, classes=CLASSES), world, shards=shards, **settings))


@pytest.mark.parametrize("unit", ["sample", "class"])
@pytest.mark.parametrize(("n", "shards"), [(60, 4), (41, 3)])
def test_two_ranks_and_one_craft_the_same_bits(pool, alone, unit, n, shards):
    settings = {"unit": unit, "noise_steps": 2, "subset": 0.6}
    expected = craft_on(alone, n, shards, settings)
    found = pool.run(craft_on, n, shards, settings)
    assert stages(found[0]) == stages(found[1]), "ranks yield the same events between two collectives"
    assert errors(found[0]) == errors(found[1]) == errors(expected)
    together = joined(found)
    if unit == "sample":
        np.testing.assert_array_equal(together.delta, expected.delta)
    else:
        np.testing.assert_array_equal(together.shared, expected.shared)
        np.testing.assert_array_equal(together.group, expected.group)


@pytest.mark.parametrize("unit", slow_but(["sample"], ["sample", "class"]))
def test_an_interrupted_run_ends_with_the_same_bits(tmp_path, unit):
    source = ToySource(41, classes=CLASSES)
    settings = {"unit": unit, "noise_steps": 2, "subset": 1.0, "shards": 3}
    whole = craft(make_method(source, **settings))
    for stop_after in range(1, len(whole.steps) + 1, 2 if unit == "class" else 3):
        folder = tmp_path / str(stop_after)
        folder.mkdir()
        method = make_method(source, **settings)
        craft(method, stop_after=stop_after)
        save(method, folder)
        rest = craft(restore(make_method(source, **settings), folder))
        assert errors(rest) == errors(whole)[len(errors(whole)) - len(errors(rest)) :]
        if unit == "sample":
            np.testing.assert_array_equal(rest.delta, whole.delta)
        else:
            np.testing.assert_array_equal(rest.shared, whole.shared)


@pytest.mark.parametrize("unit", ["sample", "class"])
def test_a_surrogate_that_diverges_ends_the_run(unit):
    method = make_method(ToySource(40, classes=CLASSES), unit=unit, learning_rate=1e30, noise_steps=1, exact=False)
    with pytest.raises(HpculeError, match="has diverged"):
        craft(method)


def test_finished_shards_are_not_handed_out_again():
    source = ToySource(40, classes=CLASSES)
    assert set(craft(make_method(source, done=frozenset({0, 2}), noise_steps=1)).deltas) == {1, 3}
    settings = {"unit": "class", "done": frozenset({0, 2}), "noise_steps": 1}
    assert set(craft(make_method(source, **settings)).groups) == {1, 3}
