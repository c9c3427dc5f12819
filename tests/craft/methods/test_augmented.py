"""The methods of the two-phase template, and what AUE, AAP, TAP and HYPO add to it."""

import numpy as np
import pytest
import torch
from torch.nn import functional
from toys import ToySource, craft, joined, restore, save
from two_phase_toys import CLASSES, RUNS, loss_of, make_method, unit

from hpcule.config.errors import UsageError
from hpcule.craft.parts.surrogate import logits_of
from hpcule.data.schedule import Ghost
from hpcule.data.strong import Strong
from hpcule.world.keyed import key


def trained(run, source, *extra):
    """A method after its model phase, and its frozen surrogate."""
    method = make_method(run, source, None, *extra)
    craft(method, stop_after=method.steps)
    return method, method.surrogate.frozen()


# -- augmentation


def test_every_step_looks_through_a_draw_of_its_own():
    """One sample after the other, with the augmentation that its key and id give."""
    source = ToySource(40, classes=CLASSES)
    method, frozen = trained("aue", source, "method.noise_steps=3")
    ids = np.arange(12)
    clean, labels = unit(source, ids)
    found = method.noise.descend(frozen, clean, torch.zeros_like(clean), labels, ids, 5)
    for number in range(12):
        delta = torch.zeros_like(clean[:1])
        for step in range(3):
            purpose = key(0, "aue", "noise view", 5, step)
            seen = (clean[number : number + 1] + delta).clamp(0, 1).requires_grad_()
            view = Strong.draw(purpose, ids[number : number + 1], (8, 8), 0.6)
            functional.cross_entropy(logits_of(frozen, view.apply(seen)), labels[number : number + 1]).backward()
            moved = seen.detach() - 0.8 / 255 * seen.grad.sign()
            delta = (moved - clean[number]).clamp(-8 / 255, 8 / 255)
        assert ((found[number] - delta[0]).abs() < 1e-6).float().mean() > 0.98


def test_the_model_looks_through_the_epochs_draws():
    source = ToySource(40, classes=CLASSES)
    method = make_method("aue", source)
    seen, epochs = [], set()

    def note(batch, load, rate):
        epoch = method.batches // method.schedule.steps
        epochs.add(epoch)
        seen.extend((epoch, ghost, *load(ghost)) for ghost in batch)

    method.surrogate.train = note
    craft(method)
    assert epochs == {0, 1}
    for epoch, ghost, inputs, labels in seen[: len(seen) // 2]:  # before the first noise phase
        clean, expected = unit(source, ghost.ids)
        view = Strong.draw(key(0, "aue", "model view", epoch), ghost.ids, (8, 8), 0.6)
        torch.testing.assert_close(inputs, view.apply(clean))
        assert (labels == expected).all()


def test_a_strength_of_nothing_is_no_augmentation():
    source = ToySource(40, classes=CLASSES)
    plain = craft(make_method("aap", source, None, "method.augment=none")).delta
    np.testing.assert_array_equal(craft(make_method("aap", source, None, "method.strength=0")).delta, plain)
    assert (craft(make_method("aap", source)).delta != plain).any()


def test_learning_rates_follow_their_schedule():
    source = ToySource(48, classes=CLASSES)
    rates = {}
    for schedule in ("constant", "cosine", "stairs"):
        settings = [f"method.schedule={schedule}", "method.model_epochs=8", "method.warmup_epochs=0"]
        method = make_method("aap", source, None, *settings)
        seen = []
        method.surrogate.train = lambda batch, load, rate, seen=seen: seen.append(rate)
        craft(method, stop_after=method.steps)
        rates[schedule] = np.array(seen) / 0.5
    steps = np.arange(16)  # 48 samples in batches of 24
    np.testing.assert_allclose(rates["constant"], 1)
    np.testing.assert_allclose(rates["cosine"], 0.5 * (1 + np.cos(np.pi * steps / 16)))
    np.testing.assert_allclose(rates["stairs"], np.repeat([1, 0.1, 0.01, 0.001], [6, 4, 4, 2]))
    method = make_method("aap", source, None, "method.model_epochs=8", "method.warmup_epochs=2")
    assert method._rate() == pytest.approx(0.5 / 4)


# -- class-wise AUE


def test_a_class_moves_by_the_sign_of_its_summed_gradients():
    source = ToySource(40, classes=CLASSES)
    method, frozen = trained("aue class-wise", source, "method.augment=none")
    batches = method.noise._schedule.epoch(0)
    before = method.noise._deltas.clone()
    next(method.noise.sweep(frozen, 0))
    ids = np.concatenate([ghost.ids for ghost in batches[0]])
    clean, labels = unit(source, ids)
    leaf = before.clone().requires_grad_()
    functional.cross_entropy(logits_of(frozen, (clean + leaf[labels]).clamp(0, 1)), labels, reduction="sum").backward()
    expected = (before - 0.8 / 255 * leaf.grad.sign()).clamp(-8 / 255, 8 / 255)
    assert ((method.noise._deltas - expected).abs() < 1e-6).float().mean() > 0.98
    assert len(batches) == method.schedule.steps, "the whole set, not a share of it"


# -- adversarial poisons


def test_the_surrogate_sees_clean_samples():
    source = ToySource(40, classes=CLASSES)
    method = make_method("tap", source, None, "method.augment=none")
    ghost = Ghost(1, method.problem.partition.ids(1))
    method.noise._deltas[1] += 5
    clean, _ = unit(source, ghost.ids)
    torch.testing.assert_close(method._load(ghost)[0], clean)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "shift", "falls"),
    [
        ([], 1, True),
        (["method.label_shift=2"], 2, True),
        (["method.targeted=false"], 0, False),
    ],
)
def test_the_loss_toward_the_label_aimed_at_moves_as_it_should(settings, shift, falls):
    source = ToySource(60, classes=CLASSES)
    few = ["method.augment=none", "method.model_epochs=4", "method.noise_steps=20", "method.learning_rate=0.05"]
    settings = [*settings, *few]
    method, frozen = trained("aap", source, *settings)
    ids = np.arange(60)
    clean, labels = unit(source, ids)
    delta = method.noise.move(frozen, clean, torch.zeros_like(clean), labels, ids, 0)
    aim = (labels + shift) % CLASSES
    before, after = loss_of(frozen, clean, aim), loss_of(frozen, clean + delta, aim)
    assert ((after < before) if falls else (after > before)).float().mean() > 0.95
    assert delta.abs().max() <= 8 / 255 + 1e-7


def test_hypo_moves_toward_the_samples_own_label():
    source = ToySource(60, classes=CLASSES)
    method, frozen = trained("hypo", source)
    ids = np.arange(60)
    clean, labels = unit(source, ids)
    delta = method.noise.move(frozen, clean, torch.zeros_like(clean), labels, ids, 0)
    assert (loss_of(frozen, clean + delta, labels) <= loss_of(frozen, clean, labels)).float().mean() > 0.95


def test_each_sample_keeps_its_best_restart():
    source = ToySource(60, classes=CLASSES)
    ids = np.arange(60)
    clean, labels = unit(source, ids)
    several, frozen = trained("tap", source, "method.restarts=3", "method.noise_steps=2")
    aim = (labels + 1) % CLASSES
    best = several.noise.move(frozen, clean, torch.zeros_like(clean), labels, ids, 0)
    losses = []
    for restart in range(3):
        start = several.noise._start(torch.zeros_like(clean), ids, restart)
        assert start.abs().max() <= 8 / 255 + 1e-7
        assert 0.27 < (start.abs() > 7.99 / 255).float().mean() < 0.37, "a normal value is beyond its deviation"
        found = several.noise.descend(frozen, clean, start, labels, ids, restart)
        losses.append(loss_of(frozen, (clean + found).clamp(0, 1), aim))
    kept = loss_of(frozen, (clean + best).clamp(0, 1), aim)
    torch.testing.assert_close(kept, torch.stack(losses).amin(0), rtol=1e-4, atol=1e-5)
    assert len(set(torch.stack(losses).argmin(0).tolist())) > 1


@pytest.mark.parametrize(
    ("run", "setting", "message"),
    [
        ("aap", "method.max_rounds=2", "method.max_rounds: earlier versions had this setting"),
        ("aap", "method.unit=class", "method.unit: earlier versions had this setting"),
        ("aap", "method.restarts=2", "take start=normal"),
        ("aap", "method.label_shift=-1", "label_shift=-1: valid are whole numbers from 0"),
        ("aue", "method.strength=1.5", "strength=1.5: valid are numbers from 0 up to 1"),
        ("aue", "method.model_epochs=0", "model_epochs=0: valid are whole numbers from 1"),
        ("aue", "method.augment=stong", "valid are none, crop-flip, strong"),
    ],
)
def test_what_makes_no_sense_is_refused(run, setting, message):
    with pytest.raises(UsageError, match=message):
        make_method(run, ToySource(40), None, setting)


# -- all of them


def craft_on(world, run, n, shards):
    torch.set_num_threads(1)
    return craft(make_method(run, ToySource(n, classes=CLASSES), world, shards=shards))


def published(outcome):
    return outcome.delta if outcome.shared is None else outcome.shared


@pytest.mark.slow
@pytest.mark.parametrize("run", RUNS)
def test_two_ranks_and_one_craft_the_same_bits(pool, alone, run):
    expected = published(craft_on(alone, run, 61, 3))
    np.testing.assert_array_equal(published(joined(pool.run(craft_on, run, 61, 3))), expected)
    assert np.abs(expected).max() > 1
    method = make_method(run, ToySource(61, classes=CLASSES))
    assert method.budget(method.config, expected.shape[1:], 255).excess(expected) is None


@pytest.mark.slow
@pytest.mark.parametrize("run", RUNS)
def test_an_interrupted_run_ends_with_the_same_bits(tmp_path, run):
    source = ToySource(40, classes=CLASSES)
    expected = published(craft(make_method(run, source)))
    method = make_method(run, source)
    craft(method, stop_after=method.steps + 2)
    save(method, tmp_path)
    again = restore(make_method(run, source), tmp_path)
    np.testing.assert_array_equal(published(craft(again)), expected)
