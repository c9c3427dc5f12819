"""REM, SEM and EntF: an adversary in the training, in the noise, and features as the aim."""

import numpy as np
import pytest
import torch
from toys import ToySource, craft
from two_phase_toys import CLASSES, loss_of, make_method, unit

from hpcule.config.errors import UsageError
from hpcule.craft.methods.entf import nearest_other
from hpcule.craft.parts.feature_centres import class_centres, feature_gradient
from hpcule.craft.parts.surrogate import features, logits_of
from hpcule.data.augment import CropFlip
from hpcule.world.keyed import key, uniform

SOURCE = ToySource(60, classes=CLASSES)
IDS = np.arange(12)


def ready(run, *extra):
    """A method whose surrogate has been trained a little, and its frozen surrogate."""
    method = make_method(run, SOURCE, None, *extra)
    craft(method, stop_after=method.steps)
    return method, method.surrogate.frozen()


def slow_ascent(frozen, sample, label, number, place, *, radius, size, steps):
    """One sample's adversary, by autograd."""
    drawn = torch.from_numpy(uniform(key(0, *place), np.array([number]), sample.numel())).view(sample.shape)
    moved = (sample + (2 * drawn - 1) * radius).clamp(0, 1)
    for _ in range(steps):
        leaf = moved.clone().requires_grad_()
        torch.nn.functional.cross_entropy(logits_of(frozen, leaf), label).backward()
        moved = (moved + size * leaf.grad.sign()).clamp(sample - radius, sample + radius).clamp(0, 1)
    return moved


# -- the adversary


def test_the_adversary_is_signed_ascent_from_a_random_start():
    method, frozen = ready("rem")
    clean, labels = unit(SOURCE, IDS)
    found = method.adversary.ascend(frozen, clean, labels, IDS, "model", 7)
    assert (found - clean).abs().max() <= 4 / 255 + 1e-6
    for number in IDS:
        mine = slice(number, number + 1)
        place = ("rem", "adversary", "model", 7)
        expected = slow_ascent(frozen, clean[mine], labels[mine], number, place, radius=4 / 255, size=2 / 255, steps=2)
        assert ((found[mine] - expected).abs() < 1e-6).float().mean() > 0.98
    assert (loss_of(frozen, found, labels) > loss_of(frozen, clean, labels)).float().mean() > 0.9


def test_an_adversary_without_radius_or_steps_does_nothing():
    method, frozen = ready("rem")
    clean, labels = unit(SOURCE, IDS)
    for setting in ({"adversary_radius": 0.0}, {"adversary_steps": 0, "adversary_radius": 0.0}):
        config = type(method.config)(**setting).resolved()
        torch.testing.assert_close(config.adversary(0, 255).ascend(frozen, clean, labels, IDS, 0), clean)


@pytest.mark.parametrize("run", ["rem", "entf"])
def test_the_model_is_trained_on_the_adversarys_samples(run):
    method = make_method(run, SOURCE, None, "method.augment=none")
    method.before = method.surrogate.frozen()
    ghost = method.schedule.at(0)[0]
    clean, labels = unit(SOURCE, ghost.ids)
    base = clean
    if run == "rem":
        delta = method.noise.move(method.before, clean, clean, labels, ghost.ids, 1)
        base = (clean + (delta * 255).round() / 255).clamp(0, 1)
    inputs, given = method._load(ghost)
    torch.testing.assert_close(given, labels)
    torch.testing.assert_close(
        inputs, method.adversary.ascend(method.before, base, labels, ghost.ids, "model", 0), rtol=0, atol=1e-6
    )
    assert 2 / 255 < (inputs - base).abs().max() <= 4 / 255 + 1e-6


def test_the_adversary_meets_the_network_as_it_was_before_the_step():
    method = make_method("entf", SOURCE)
    seen = []
    train = method.surrogate.train

    def note(*arguments):
        current = {name: value.clone() for name, value in method.surrogate.network.state_dict().items()}
        seen.append((method.before, current))
        return train(*arguments)

    method.surrogate.train = note
    craft(method, stop_after=2)
    (first, _), (second, weights) = seen[:2]
    assert first is not second
    samples = unit(SOURCE, IDS)[0]
    method.surrogate.network.load_state_dict(weights)
    torch.testing.assert_close(logits_of(second, samples), logits_of(method.surrogate.frozen(), samples))


# -- REM's and SEM's noise


@pytest.mark.parametrize("run", ["rem", "sem"])
def test_a_noise_step_follows_the_gradient_through_augmentations_and_the_adversary(run):
    method, frozen = ready(run, "method.noise_steps=1")
    clean, labels = unit(SOURCE, IDS)
    found = method.noise.gradient(frozen, clean, clean, labels, IDS, (5, 0))
    for number in IDS:
        mine, total = slice(number, number + 1), 0
        for draw in range(2):
            leaf = clean[mine].clone().requires_grad_()
            purpose = key(0, run, "noise view", 5, 0, draw)
            looked = CropFlip.draw(purpose, np.array([number]), 1).apply(leaf)
            place = (run, "adversary", 5, 0, draw)
            steps = 2 if run == "rem" else 0
            moved = slow_ascent(
                frozen, looked.detach(), labels[mine], number, place, radius=4 / 255, size=2 / 255, steps=steps
            )
            constant = moved - looked.detach()
            torch.nn.functional.cross_entropy(logits_of(frozen, looked + constant), labels[mine]).backward()
            total = total + leaf.grad
        torch.testing.assert_close(found[mine], total, rtol=1e-3, atol=1e-6)


def test_noise_starts_at_random_at_each_visit_and_stays_within_its_budget():
    method, frozen = ready("rem", "method.noise_steps=1")
    clean, labels = unit(SOURCE, IDS)
    zero = torch.zeros_like(clean)
    first, again, other = (method.noise.move(frozen, clean, zero, labels, IDS, number) for number in (1, 1, 2))
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert (first - other).abs().mean() > 1 / 255
    assert 7 / 255 < first.abs().max() <= 8 / 255 + 1e-7


def test_every_sample_gets_its_noise_from_the_finished_surrogate():
    """Also those that no training batch has seen: upstream leaves out the last, incomplete batch."""
    source = ToySource(61, classes=CLASSES)
    method = make_method("rem", source, None, "method.model_steps=1")
    outcome = craft(method)
    frozen = method.surrogate.frozen()
    ids = np.arange(61)
    clean, labels = unit(source, ids)
    expected = method.noise.move(frozen, clean, torch.zeros_like(clean), labels, ids, 0)
    published = (clean + (expected * 255).round() / 255).clamp(0, 1)
    difference = (published * 255).round().numpy() - source.samples - outcome.delta
    assert np.mean(np.abs(difference) <= 1) > 0.99


@pytest.mark.parametrize(
    ("run", "setting", "message"),
    [
        ("rem", "method.max_rounds=2", "method.max_rounds: earlier versions had this setting"),
        ("rem", "method.draws=0", "draws=0: valid are whole numbers from 1"),
        ("rem", "method.adversary_radius=-1", "adversary_radius=-1: valid are numbers from 0"),
        ("rem", "method.adversary_step_size=0", "adversary_step_size=0: valid are numbers above 0"),
        ("rem", "method.milestones=[0.4, 2]", "valid are numbers above 0 and below 1"),
        ("entf", "method.aim=shove", "valid are push, pull"),
        ("entf", "method.subset=0.2", "method.subset: earlier versions had this setting"),
        ("entf", "method.label_shift=1", "unknown setting"),
    ],
)
def test_what_makes_no_sense_is_refused(run, setting, message):
    with pytest.raises(UsageError, match=message):
        make_method(run, SOURCE, None, setting)


# -- features


def centres_on(world):
    torch.set_num_threads(1)
    method = make_method("entf", ToySource(61, classes=CLASSES), world, shards=3)
    return class_centres(method.problem, [method.surrogate.frozen(), method.surrogate.frozen()])


def test_centres_are_the_classes_mean_features(pool, alone):
    source = ToySource(61, classes=CLASSES)
    found = centres_on(alone)
    frozen = make_method("entf", source, shards=3).surrogate.frozen()
    samples, labels = unit(source, np.arange(61))
    with torch.no_grad():
        slow = torch.stack([features(frozen, samples)[labels == label].mean(0) for label in range(CLASSES)])
    torch.testing.assert_close(found[0], slow, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[0], found[1])
    for shared in pool.run(centres_on):
        assert torch.equal(shared, found)


def test_the_features_are_what_the_linear_layer_sees():
    method = make_method("entf", SOURCE)
    frozen = method.surrogate.frozen()
    samples, _ = unit(SOURCE, IDS)
    with torch.no_grad():
        torch.testing.assert_close(frozen.linear(features(frozen, samples)), logits_of(frozen, samples))


def test_the_feature_gradient_is_that_of_the_mean_squared_distance():
    method = make_method("entf", SOURCE)
    frozen = method.surrogate.frozen()
    samples, labels = unit(SOURCE, IDS)
    centres = torch.randn(CLASSES, features(frozen, samples).shape[1])[labels]
    leaf = samples.clone().requires_grad_()
    for sample, centre in zip(features(frozen, leaf), centres, strict=True):
        torch.nn.functional.mse_loss(sample, centre).backward(retain_graph=True)
    torch.testing.assert_close(feature_gradient(frozen, samples, centres), leaf.grad)


def test_the_nearest_other_class_is_never_the_own():
    centres = torch.tensor([[0.0, 0], [1, 0], [10, 0], [10.5, 0]])
    assert nearest_other(centres).tolist() == [1, 0, 3, 2]


@pytest.mark.parametrize("aim", ["push", "pull"])
def test_features_go_where_they_are_sent(aim):
    method, frozen = ready("entf", f"method.aim={aim}", "method.augment=none", "method.noise_steps=20")
    list(method.noise.sweep(frozen, 0))
    own = class_centres(method.problem, [frozen])[0]
    centres = own if aim == "push" else own[nearest_other(own)]
    samples, labels = unit(SOURCE, np.arange(60))
    deltas = torch.cat([method.noise._wake(method.noise._deltas[shard]) for shard in range(4)])
    with torch.no_grad():
        before = (features(frozen, samples) - centres[labels]).square().mean(1)
        after = (features(frozen, (samples + deltas).clamp(0, 1)) - centres[labels]).square().mean(1)
    assert ((after > before) if aim == "push" else (after < before)).float().mean() > 0.95
