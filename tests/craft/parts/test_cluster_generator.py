import copy

import pytest
import torch

from hpcule.craft.parts.cluster_generator import ClusterGenerator

SHAPE = (3, 8, 8)


def make(cluster=1, *, seed=0, epsilon=0.05, bound="clamp", shape=SHAPE):
    settings = {"epsilon": epsilon, "bound": bound, "weight_decay": 5e-4}
    return ClusterGenerator(cluster, shape, **settings, seed=seed, device=torch.device("cpu"))


@pytest.fixture
def gradient():
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))


def test_a_delta_keeps_the_budget_and_says_how_much_is_clipped():
    generator = make()
    delta = generator.delta()
    assert delta.shape == SHAPE
    assert delta.abs().max() <= 0.05
    clipped = (delta.abs() == 0.05).float().mean().item()
    assert generator.saturated == pytest.approx(clipped)
    assert clipped > 0.5, "a fresh generator fills its range"
    wide = make(epsilon=0.999)
    wide.delta()
    assert wide.saturated == 0.0


def test_a_shrunk_delta_is_the_generators_whole_range():
    generator = make(bound="scaled-tanh")
    delta = generator.delta()
    output = generator._generator(generator._noise)[0]
    torch.testing.assert_close(delta, 0.05 * output)
    assert generator.saturated == pytest.approx((output.abs() > 0.99).float().mean().item())
    assert 0.03 < delta.abs().max() <= 0.05


def test_delta_is_that_of_training_mode_however_often_it_is_asked_for():
    generator = make()
    assert (generator.delta() == generator.delta()).all()
    assert generator._generator.training


def test_cluster_and_seed_decide_the_delta():
    base = make().delta()
    assert (make().delta() == base).all()
    for other in (make(2), make(seed=1)):
        assert (other.delta() - base).abs().mean() > 0.01


def test_steps_lower_the_loss(gradient):
    # L = <gradient, delta> falls along its gradient.
    generator = make(epsilon=0.5)
    losses = []
    for _ in range(5):
        delta = generator.delta()
        losses.append((gradient * delta.detach()).sum().item())
        generator.update(delta, gradient, 1e-3)
    assert losses[-1] < losses[0] - 1


@pytest.mark.parametrize("bound", ["clamp", "scaled-tanh"])
def test_an_update_is_one_step_of_adam_from_the_chain_rule(gradient, bound):
    generator = make(epsilon=0.5, bound=bound)
    reference = copy.deepcopy(generator._generator)
    optimizer = torch.optim.Adam(reference.parameters(), lr=1e-3, weight_decay=5e-4)
    for _ in range(2):
        generator.update(generator.delta(), gradient, 1e-3)
        optimizer.zero_grad()
        output = reference(generator._noise)[0]
        delta = output.clamp(-0.5, 0.5) if bound == "clamp" else 0.5 * output
        (delta * gradient).sum().backward()
        optimizer.step()
    for found, expected in zip(generator._generator.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("bound", "blocked"), [("clamp", True), ("scaled-tanh", False)])
def test_no_gradient_passes_where_the_delta_is_clipped(bound, blocked):
    clipped = (make(epsilon=0.05).delta().abs() == 0.05).float()
    generator = make(epsilon=0.05, bound=bound)
    generator.update(generator.delta(), clipped, 0.0)
    assert all((parameter.grad == 0).all() for parameter in generator._generator.parameters()) == blocked


def test_a_restored_generator_goes_on_alike(gradient):
    one = make()
    one.update(one.delta(), gradient, 1e-3)
    other = make(seed=0)
    other.restore(copy.deepcopy(one.state()))
    for generator in (one, other):
        generator.update(generator.delta(), gradient, 1e-3)
    assert (one.delta() == other.delta()).all()
    assert (one.delta() != make().delta()).any()


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 10, 9), (1, 28, 28)])
def test_other_shapes(shape):
    assert make(shape=shape).delta().shape == shape
