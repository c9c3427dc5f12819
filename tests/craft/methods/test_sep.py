"""SEP: many checkpoints of one training."""

import numpy as np
import pytest
import torch
from toys import ToySource, craft, restore, save
from two_phase_toys import CLASSES, loss_of, make_method, unit

from hpcule.craft.parts.feature_centres import class_centres, feature_gradient
from hpcule.craft.parts.surrogate import input_gradient, logits_of
from hpcule.world.keyed import key

SOURCE = ToySource(60, classes=CLASSES)
IDS = np.arange(12)


def trained(*extra, run="sep"):
    method = make_method(run, SOURCE, None, *extra)
    craft(method, stop_after=method.steps)
    return method, method.frozen()


@pytest.mark.parametrize(("epochs", "count"), [(2, 3), (4, 5), (1, 30)])
def test_checkpoints_are_spread_over_the_training_and_end_with_it(epochs, count):
    method = make_method("sep", SOURCE, None, f"method.model_epochs={epochs}", f"method.checkpoints={count}")
    steps = []
    for event in method.run():
        if event.stage != "model":
            break
        if len(method.checkpoints) > len(steps):
            steps.append(event.done)
            last = method.surrogate.network.state_dict()
            assert all(torch.equal(method.checkpoints[-1][name], last[name]) for name in last)
    samples, _ = unit(SOURCE, IDS)
    batches = method.schedule.steps * epochs
    assert steps == [round((n + 1) * batches / min(count, batches)) for n in range(min(count, batches))]
    assert steps[-1] == batches
    logits = [logits_of(network, samples) for network in method.frozen().networks]
    assert len(logits) == len(steps)
    assert (logits[0] - logits[-1]).abs().max() > 1e-3, "each with its own weights"


def test_the_gradient_is_the_mean_of_the_checkpoints_gradients():
    method, frozen = trained()
    samples, labels = unit(SOURCE, IDS)
    found = method.noise.gradient(frozen, samples, samples, labels, IDS, (0, 0))
    leaf, aim = samples.clone().requires_grad_(), method.targets(labels)
    for network in frozen.networks:
        torch.nn.functional.cross_entropy(logits_of(network, leaf), aim, reduction="sum").backward()
    torch.testing.assert_close(found, leaf.grad / 3, rtol=1e-4, atol=1e-6)


def test_features_are_sent_to_the_centre_under_the_same_checkpoint():
    method, frozen = trained("method.aim=feature")
    list(method.noise.sweep(frozen, 0))
    samples, labels = unit(SOURCE, IDS)
    found = method.noise.gradient(frozen, samples, samples, labels, IDS, (0, 0))
    each = [
        feature_gradient(network, samples, class_centres(method.problem, [network])[0][method.targets(labels)])
        for network in frozen.networks
    ]
    torch.testing.assert_close(found, torch.stack(each).mean(0), rtol=1e-3, atol=1e-8)


def test_variance_reduction_walks_over_single_checkpoints():
    method, frozen = trained("method.variance_reduction=true")
    samples, labels = unit(SOURCE, IDS)
    found = method.noise.gradient(frozen, samples, samples, labels, IDS, (4, 2))
    aim = method.targets(labels)
    start = [input_gradient(network, samples, aim)[0] for network in frozen.networks]
    mean = sum(start) / 3
    generator = torch.Generator().manual_seed(key(0, "sep", "walk", 4, 2) % 2**63)
    moved, total = samples, torch.zeros_like(samples)
    for number in torch.randint(3, (3,), generator=generator).tolist():
        total = total + input_gradient(frozen.networks[number], moved, aim)[0] - start[number] + mean
        moved = (moved - method.config.step_size / 255 * total.sign()).clamp(0, 1)
    torch.testing.assert_close(found, total, rtol=1e-4, atol=1e-6)
    assert (found.sign() != mean.sign()).any()


def test_all_checkpoints_are_misled_toward_the_label_half_of_the_classes_further():
    method, frozen = trained("method.noise_steps=10", "method.epsilon=8", "method.model_epochs=4")
    samples, labels = unit(SOURCE, np.arange(60))
    aim = (labels + CLASSES // 2) % CLASSES
    assert torch.equal(method.targets(labels), aim)
    delta = method.noise.move(frozen, samples, torch.zeros_like(samples), labels, np.arange(60), 0)
    for network in frozen.networks:
        before, after = loss_of(network, samples, aim), loss_of(network, (samples + delta).clamp(0, 1), aim)
        assert after.mean() < before.mean()


def test_checkpoints_survive_an_interruption_of_the_training(tmp_path):
    method = make_method("sep", SOURCE)
    craft(method, stop_after=3)
    assert len(method.checkpoints) == 1
    save(method, tmp_path)
    again = restore(make_method("sep", SOURCE), tmp_path)
    for mine, kept in zip(again.checkpoints, method.checkpoints, strict=True):
        assert all(torch.equal(mine[name], kept[name]) for name in kept)
