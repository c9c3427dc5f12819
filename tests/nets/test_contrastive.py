"""Contrastive losses against slow references, and what learners do with their views."""

import math

import pytest
import torch
from torch import nn

from hpcule.nets.contrastive import EMBEDDING, build_learner, normalized
from hpcule.nets.contrastive_losses import alignment, info_nce, nt_xent, regression, supervised_nt_xent, uniformity


def rows(n, seed, width=5):
    return normalized(torch.randn(n, width, generator=torch.Generator().manual_seed(seed)))


def dot(one, other):
    return sum(float(a) * float(b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("temperature", [0.5, 0.07])
def test_nt_xent_equals_a_slow_reference(temperature):
    first, second = rows(4, 0), rows(4, 1)
    views = [*first, *second]
    total = 0.0
    for i, anchor in enumerate(views):
        scores = {j: math.exp(dot(anchor, other) / temperature) for j, other in enumerate(views) if j != i}
        total -= math.log(scores[(i + 4) % 8] / sum(scores.values()))
    assert float(nt_xent(first, second, temperature)) == pytest.approx(total / 2, rel=1e-5)


def test_supervised_nt_xent_equals_a_slow_reference():
    first, second, labels = rows(5, 0), rows(5, 1), [0, 1, 0, 2, 1]
    views, names = [*first, *second], labels * 2
    total = 0.0
    for i, anchor in enumerate(views):
        scores = {j: math.exp(dot(anchor, other) / 0.3) for j, other in enumerate(views) if j != i}
        own = [j for j in scores if names[j] == names[i]]
        total -= sum(math.log(scores[j] / sum(scores.values())) for j in own) / len(own)
    found = supervised_nt_xent(first, second, torch.tensor(labels), 0.3)
    assert float(found) == pytest.approx(total / 2, rel=1e-5)


def test_without_two_of_a_class_supervision_changes_nothing():
    first, second = rows(4, 0), rows(4, 1)
    found = supervised_nt_xent(first, second, torch.arange(4), 0.5)
    torch.testing.assert_close(found, nt_xent(first, second, 0.5))


def test_a_single_sample_has_no_negatives_and_no_loss():
    assert float(nt_xent(rows(1, 0), rows(1, 1), 0.5)) == pytest.approx(0)


def test_info_nce_equals_a_slow_reference():
    queries, keys, queue = rows(3, 0), rows(3, 1), rows(7, 2)
    total = 0.0
    for query, key in zip(queries, keys, strict=True):
        own = math.exp(dot(query, key) / 0.2)
        total -= math.log(own / (own + sum(math.exp(dot(query, other) / 0.2) for other in queue)))
    assert float(info_nce(queries, keys, queue, 0.2)) == pytest.approx(total, rel=1e-5)


def test_regression_equals_a_slow_reference():
    predictions, targets = rows(3, 0), rows(3, 1)
    total = sum(
        sum((float(a) - float(b)) ** 2 for a, b in zip(p, t, strict=True))
        for p, t in zip(predictions, targets, strict=True)
    )
    assert float(regression(predictions, targets)) == pytest.approx(total, rel=1e-5)


def test_alignment_and_uniformity_have_their_known_values():
    points = rows(6, 0)
    assert alignment(points, points) == 0
    assert alignment(points, -points) == pytest.approx(4)
    assert uniformity(points[:1].expand(4, -1)) == pytest.approx(0)
    # Two poles: the one pair is at a squared distance of 4.
    assert uniformity(torch.stack([points[0], -points[0]])) == pytest.approx(-8)
    slow = [math.exp(-2 * float((a - b).square().sum())) for i, a in enumerate(points) for b in points[:i]]
    assert uniformity(points) == pytest.approx(math.log(sum(slow) / len(slow)), rel=1e-5)


def learner(kind, seed=0, **settings):
    settings = {"channels": 3, "size": (8, 8), "temperature": 0.5, "momentum": 0.9, "queue": 10, **settings}
    return build_learner(kind, "resnet-tiny", seed=seed, **settings)


def views(n=6):
    generator = torch.Generator().manual_seed(3)
    return torch.rand(n, 3, 8, 8, generator=generator), torch.rand(n, 3, 8, 8, generator=generator)


@pytest.mark.parametrize("kind", ["simclr", "moco", "byol", "simsiam"])
def test_a_learner_follows_from_its_seed_alone(kind):
    torch.manual_seed(1)
    one = learner(kind).state_dict()
    torch.manual_seed(2)
    assert all((other == one[name]).all() for name, other in learner(kind).state_dict().items())
    assert any((other != one[name]).any() for name, other in learner(kind, seed=1).state_dict().items())


def test_simclr_is_its_branch_and_nt_xent():
    network, (first, second) = learner("simclr").eval(), views()
    queries, keys = network(first, second)
    torch.testing.assert_close(queries, normalized(network.online(first)))
    torch.testing.assert_close(keys, normalized(network.online(second)))
    torch.testing.assert_close(network.loss(queries, keys), nt_xent(queries, keys, 0.5))


def test_moco_asks_the_online_branch_and_looks_up_in_the_target():
    network, (first, second) = learner("moco").eval(), views()
    with torch.no_grad():
        next(network.target.parameters()).mul_(1.1)
    queries, keys = network(first, second)
    torch.testing.assert_close(queries, normalized(network.online(first)))
    torch.testing.assert_close(keys, normalized(network.target(second)))
    torch.testing.assert_close(network.loss(queries, keys), info_nce(queries, keys, network.queue, 0.5))


def test_byol_predicts_each_view_from_the_other():
    network, (first, second) = learner("byol").eval(), views()
    queries, keys = network(first, second)
    predicted = [normalized(network.predictor(network.online(view))) for view in (first, second)]
    targets = [normalized(network.target(view)) for view in (first, second)]
    expected = regression(predicted[0], targets[1]) + regression(predicted[1], targets[0])
    torch.testing.assert_close(network.loss(queries, keys), expected)
    torch.testing.assert_close(queries[:6], predicted[0])
    torch.testing.assert_close(keys[:6], targets[1])


def test_simsiam_predicts_each_view_from_the_other_and_stops_the_gradient():
    network, (first, second) = learner("simsiam").eval(), views()
    queries, keys = network(first, second)
    predicted = [normalized(network.predictor(network.online(view))) for view in (first, second)]
    targets = [normalized(network.online(view)) for view in (first, second)]
    assert not keys.requires_grad
    torch.testing.assert_close(keys, torch.cat([targets[1], targets[0]]))
    cosines = (predicted[0] * targets[1]).sum(1) + (predicted[1] * targets[0]).sum(1)
    torch.testing.assert_close(network.loss(queries, keys), (4 - 2 * cosines).sum())
    widths = [(m.in_features, m.out_features) for m in network.modules() if isinstance(m, nn.Linear)]
    assert widths == [(128, 512), (512, 512), (512, 128), (128, 512)]


@pytest.mark.parametrize("kind", ["moco", "byol"])
def test_the_target_is_a_running_mean_of_weights_with_statistics_of_its_own(kind):
    network = learner(kind)
    before = {name: value.clone() for name, value in network.target.state_dict().items()}
    with torch.no_grad():
        for parameter in network.online.parameters():
            parameter.add_(1)
    network(*views())
    statistics = {name: value.clone() for name, value in network.target.named_buffers()}
    network.follow()
    for name, value in network.target.named_parameters():
        torch.testing.assert_close(value, before[name] + 0.1)
        assert not value.requires_grad
    for name, value in network.target.named_buffers():
        assert (value == statistics[name]).all(), "statistics are not averaged"
        assert (value != before[name]).any(), "but counted on what the target itself sees"
    pairs = zip(network.target.named_buffers(), network.online.buffers(), strict=True)
    assert any((own != other).any() for (name, own), other in pairs if name.endswith("running_mean"))


@pytest.mark.parametrize("kind", ["moco", "byol"])
def test_gradients_reach_the_pixels_through_the_target_too(kind):
    network, (first, second) = learner(kind).eval(), views()
    second.requires_grad_()
    if kind == "byol":  # of the online branch's output nothing is left then
        network.predictor.append(nn.Linear(EMBEDDING, EMBEDDING))
        nn.init.zeros_(network.predictor[-1].weight)
    network.loss(*network(first, second)).backward()
    assert (second.grad != 0).any()


def test_the_queue_is_first_in_first_out():
    network = learner("moco", queue=5)
    old = network.queue.clone()
    assert old.norm(dim=1).allclose(torch.ones(5))
    network.enqueue(rows(3, 0, EMBEDDING))
    torch.testing.assert_close(network.queue, torch.cat([rows(3, 0, EMBEDDING), old[:2]]))
    network.enqueue(rows(8, 1, EMBEDDING))
    torch.testing.assert_close(network.queue, rows(8, 1, EMBEDDING)[:5])


def test_heads_are_four_times_as_wide_as_the_features():
    network = learner("byol")
    widths = [(m.in_features, m.out_features) for m in network.modules() if isinstance(m, nn.Linear)]
    head, predictor = [(128, 512), (512, 128)], [(128, 512), (512, 128)]
    assert widths == [*head, *head, *predictor], "online, target, predictor; the classifier's last layer is cut off"
