"""MI-UE: noise steps that compare the features of all samples of a batch, against references with plain loops."""

import math

import numpy as np
import pytest
import torch
from slowly import slow_but
from toys import ToySource, craft, joined, restore, save
from two_phase_toys import CLASSES, make_method, unit

from hpcule.config.errors import UsageError
from hpcule.craft.methods.mi_ue import class_contrast, class_spread
from hpcule.craft.parts.surrogate import features, logits_of
from hpcule.craft.table import configure
from hpcule.data.schedule import Ghost


def settings_of(*overrides, preset=None):
    return configure("mi-ue", "toys", preset=preset, file={}, overrides=list(overrides)).method


def draw(labels, width=7, seed=0):
    vectors = torch.randn(len(labels), width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return vectors, torch.tensor(labels)


def dot(first, second):
    return sum(a * b for a, b in zip(first, second, strict=True))


def slow_contrast(vectors, labels, temperature):
    """The published formula, sample by sample."""
    vectors, total = vectors.tolist(), 0.0
    for i, first in enumerate(vectors):
        own = everybody = 0.0
        for j, second in enumerate(vectors):
            cosine = dot(first, second) / math.sqrt(dot(first, first) * dot(second, second))
            everybody += math.exp(cosine / temperature)
            if labels[i] == labels[j]:
                own += math.exp(cosine / temperature)
        total -= math.log(own / everybody)
    return total / len(vectors)


def slow_spread(vectors, labels):
    """The second term, sample by sample."""
    vectors, total = vectors.tolist(), 0.0
    for i, first in enumerate(vectors):
        others = [second for j, second in enumerate(vectors) if labels[i] == labels[j]]
        total += math.log(1 + sum(math.dist(first, second) for second in others) / len(first))
    return total / len(vectors)


def numerical(loss, vectors):
    """Central differences of a loss by each feature."""
    gradient = torch.zeros_like(vectors)
    for place in np.ndindex(*vectors.shape):
        step = torch.zeros_like(vectors)
        step[place] = 1e-6
        gradient[place] = (loss(vectors + step) - loss(vectors - step)) / 2e-6
    return gradient


# Classes of several sizes, one of them with a single sample; and two samples.
BATCHES = [[0, 0, 1, 1, 1, 2, 0, 0, 0], [3, 1]]


@pytest.mark.parametrize("labels", BATCHES)
@pytest.mark.parametrize("temperature", [0.1, 2.0])
def test_the_contrast_is_that_of_the_formula(labels, temperature):
    vectors, numbers = draw(labels)
    found = class_contrast(vectors, numbers, temperature)
    assert float(found) == pytest.approx(slow_contrast(vectors, labels, temperature), rel=1e-9)


@pytest.mark.parametrize("labels", BATCHES)
def test_the_spread_is_that_of_the_formula(labels):
    vectors, numbers = draw(labels)
    assert float(class_spread(vectors, numbers)) == pytest.approx(slow_spread(vectors, labels), rel=1e-9)


def test_gradients_are_those_of_the_formulas():
    labels = BATCHES[0]
    vectors, numbers = draw(labels, width=2)
    leaf = vectors.clone().requires_grad_()
    (contrast,) = torch.autograd.grad(class_contrast(leaf, numbers, 0.5), leaf)
    torch.testing.assert_close(contrast, numerical(lambda v: slow_contrast(v, labels, 0.5), vectors))
    (spread,) = torch.autograd.grad(class_spread(leaf, numbers), leaf)
    torch.testing.assert_close(spread, numerical(lambda v: slow_spread(v, labels), vectors))


def test_a_batch_of_one_class_moves_nobody():
    """Its share is 1 whatever the features are; a rounding error would be a full step, since steps follow the sign."""
    vectors, numbers = draw([4] * 6)
    leaf = vectors.float().requires_grad_()
    loss = class_contrast(leaf, numbers, 0.1)
    (gradient,) = torch.autograd.grad(loss, leaf)
    assert float(loss.detach()) == 0
    assert (gradient == 0).all()


def test_a_class_with_one_sample_is_pushed_away_from_the_others():
    vectors, numbers = draw([0, 1, 1, 1])
    leaf = vectors.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(class_contrast(leaf, numbers, 0.5), leaf)
    moved = vectors[0] - 0.01 * gradient[0]
    assert gradient[0].abs().max() > 1e-3
    before, after = (torch.cosine_similarity(v[None], vectors[1:]).mean() for v in (vectors[0], moved))
    assert after < before


def test_equal_and_dead_features_have_finite_gradients():
    vectors = torch.zeros(4, 5)
    vectors[2:] = 1.0
    for loss in (lambda v, y: class_contrast(v, y, 0.1), class_spread):
        leaf = vectors.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(leaf, torch.tensor([0, 0, 1, 1])), leaf)
        assert gradient.isfinite().all()


# -- steps


def test_the_papers_values_and_the_size_of_the_steps():
    config = settings_of()
    assert (config.max_rounds, config.noise_steps, config.noise_batch, config.batch) == (100, 10, 512, 128)
    assert (config.temperature, config.spread, config.epsilon) == (0.1, 0, 8)
    assert (config.step_size, config.final_step_size) == (pytest.approx(0.2), pytest.approx(0.4))
    # The authors' loop counts its 100 epochs from 1.
    for epoch in (1, 2, 50, 100):
        share = (100 - epoch + 1) / 100
        assert config.step_size_in(epoch - 1) == pytest.approx(share * (0.2 - 0.4) + 0.4)
    assert settings_of("method.epsilon=16", "method.noise_steps=4").final_step_size == pytest.approx(2)
    assert settings_of("method.final_step_size=1").final_step_size == 1


@pytest.mark.parametrize("setting", ["noise_batch=1", "temperature=0", "spread=-1", "final_step_size=0"])
def test_what_makes_no_sense_is_refused(setting):
    with pytest.raises(UsageError, match="valid are"):
        settings_of(f"method.{setting}")


def trained(source, *extra):
    """A method after its model phase, and its frozen surrogate."""
    method = make_method("mi-ue", source, None, *extra)
    craft(method, stop_after=method.steps)
    return method, method.surrogate.frozen()


@pytest.mark.parametrize("extra", [[], ["method.augment=crop-flip"]], ids=["plain", "through an augmentation"])
def test_a_sweep_equals_a_slow_reference(extra):
    """Whole batches at once through the network, the slow formulas for the loss, and a step of the round's size."""
    source = ToySource(40, classes=CLASSES)
    method, frozen = trained(source, *extra, "method.noise_steps=2", "method.temperature=0.3", "method.spread=0.5")
    noise, number = method.noise, 1
    batches = noise._schedule.epoch(number)
    assert [sum(len(ghost.ids) for ghost in batch) for batch in batches] == [25, 15]
    assert len({ghost.shard for ghost in batches[0]}) == 4
    step = noise.config.step_size_in(number) / 255
    expected = torch.zeros(40, *source.shape)
    for batch in batches:
        ids = np.concatenate([ghost.ids for ghost in batch])
        clean, labels = unit(source, ids)
        own = labels[:, None] == labels
        delta = torch.zeros_like(clean)
        for turn in range(2):
            leaf = (clean + delta).clamp(0, 1).requires_grad_()
            view = noise.view(ids, number, turn)
            g = features(frozen, view.apply(leaf) if view else leaf)
            cosines = torch.cosine_similarity(g[:, None], g[None], dim=2)
            powers = (cosines / 0.3).exp()
            distances = (g[:, None] - g[None]).square().sum(2).clamp_min(1e-30).sqrt()
            loss = -((powers * own).sum(1) / powers.sum(1)).log().mean()
            loss = loss + 0.5 * (1 + (distances * own).sum(1) / g.shape[1]).log().mean()
            loss.backward()
            delta = (leaf.detach() - step * leaf.grad.sign() - clean).clamp(-8 / 255, 8 / 255)
        expected[torch.from_numpy(ids)] = delta
    steps = list(noise.sweep(frozen, number))
    assert [(event.done, event.total) for event in steps] == [(1, 2), (2, 2)]
    found = torch.cat([noise.delta(Ghost(shard, method.problem.partition.ids(shard))) for shard in range(4)])
    # At rest a delta is float16 in levels; a gradient of nearly zero may have another sign ghost by ghost.
    assert ((found - expected).abs() < 2**-9 / 255).float().mean() > 0.99
    clean, labels = unit(source, np.arange(40))
    with torch.no_grad():
        wrong = (logits_of(frozen, (clean + found).clamp(0, 1)).argmax(1) != labels).sum().item()
    assert noise.error() == pytest.approx(wrong / 40, abs=1 / 40)


def test_steps_make_the_features_of_a_class_alike():
    source = ToySource(40, classes=CLASSES)
    method, frozen = trained(source, "method.noise_steps=20", "method.step_size=0.8", "method.noise_batch=40")
    list(method.noise.sweep(frozen, 0))
    clean, labels = unit(source, np.arange(40))
    delta = torch.cat([method.noise.delta(Ghost(shard, method.problem.partition.ids(shard))) for shard in range(4)])
    with torch.no_grad():
        before, after = (class_contrast(features(frozen, x), labels, 0.1) for x in (clean, (clean + delta).clamp(0, 1)))
    assert after < 0.97 * before
    assert delta.abs().max() <= 8 / 255 + 1e-7


def test_a_collection_sorted_by_class_has_all_classes_in_a_batch():
    source = ToySource(180, classes=CLASSES)
    order = np.argsort(source.labels, kind="stable")
    source.samples, source.labels = source.samples[order], source.labels[order]
    method = make_method("mi-ue", source, None, "method.noise_batch=60", "method.ghost=32", shards=6)
    batches = method.noise._schedule.epoch(0)
    assert len(batches) == 3
    for batch in batches:
        ids = np.concatenate([ghost.ids for ghost in batch])
        assert set(source.labels[ids]) == {0, 1, 2}


# -- whole runs


QUICK = "method.surrogate=convnet"


def craft_on(world, n, shards):
    return craft(make_method("mi-ue", ToySource(n, classes=CLASSES), world, QUICK, shards=shards))


def test_rare_classes_are_crafted_too():
    source = ToySource(40, classes=CLASSES)
    source.labels = np.where(np.arange(40) == 17, 2, np.where(np.arange(40) % 8 == 0, 1, 0)).astype(np.int64)
    delta = craft(make_method("mi-ue", source, None, QUICK)).delta
    assert (np.abs(delta).max(axis=(1, 2, 3)) > 0).all()


@pytest.mark.parametrize(("n", "shards"), slow_but([(41, 3)], [(41, 3), (60, 4), (24, 2)]))
def test_three_ranks_and_one_craft_the_same_bits(trio, alone, n, shards):
    expected = craft_on(alone, n, shards)
    found = trio.run(craft_on, n, shards)
    events = [[(step.stage, step.done) for step in outcome.steps] for outcome in [expected, *found]]
    assert events[0] == events[1] == events[2] == events[3]
    np.testing.assert_array_equal(joined(found).delta, expected.delta)
    assert [step.figures for step in found[0].steps if step.stage in ("noise", "round")] == [
        step.figures for step in expected.steps if step.stage in ("noise", "round")
    ]


def test_an_interruption_changes_nothing(tmp_path):
    """Between two batches of a noise phase, after its last one, and in the second round."""
    source = ToySource(41, classes=CLASSES)
    whole = craft(make_method("mi-ue", source, None, QUICK, shards=3))
    assert [step.stage for step in whole.steps[:5]] == ["model", "model", "noise", "noise", "round"]
    for stop_after in (3, 4, 8):
        folder = tmp_path / str(stop_after)
        folder.mkdir()
        method = make_method("mi-ue", source, None, QUICK, shards=3)
        craft(method, stop_after=stop_after)
        save(method, folder)
        rest = craft(restore(make_method("mi-ue", source, None, QUICK, shards=3), folder))
        np.testing.assert_array_equal(rest.delta, whole.delta)
        assert rest.steps[-1].figures == whole.steps[-1].figures
