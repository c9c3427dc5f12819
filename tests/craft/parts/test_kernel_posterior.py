"""The leave-one-out kernel posterior against pairs of samples taken one by one."""

import pytest
import torch
from slow_posterior import estimate_and_gradients, slow_errors
from torch.utils._python_dispatch import TorchDispatchMode
from toys import ToySource, make_problem

from hpcule.config.errors import HpculeError
from hpcule.craft.parts import kernel_posterior

CLASSES = 3


def features_of(n, dimension=5, seed=0):
    """Clusters that overlap, all values at least 0 as behind a ReLU."""
    generator = torch.Generator().manual_seed(seed)
    centers = torch.rand(CLASSES, dimension, generator=generator)
    return (centers[torch.arange(n) % CLASSES] + 0.4 * torch.randn(n, dimension, generator=generator)).relu()


def small_blocks(patch):
    """None divides anything."""
    patch.setattr(kernel_posterior, "ROWS", 4)
    patch.setattr(kernel_posterior, "COLUMNS", 7)


@pytest.fixture(params=["small blocks", "large blocks"])
def _blocks(request, monkeypatch):
    if request.param == "small blocks":
        small_blocks(monkeypatch)


@pytest.mark.usefixtures("_blocks")
@pytest.mark.parametrize(("n", "shards", "bandwidth"), [(37, 1, 0.3), (61, 3, 0.3), (40, 4, 0.05), (40, 4, 2.0)])
def test_the_estimate_and_its_gradient_are_the_slow_ones(n, shards, bandwidth):
    problem = make_problem(ToySource(n, classes=CLASSES), shards=shards)
    features = features_of(n)
    leaf = features.double().requires_grad_()
    errors = slow_errors(leaf, problem.source.labels, bandwidth)
    errors.sum().backward()
    estimate, gradients = estimate_and_gradients(features, problem, bandwidth)
    assert estimate == pytest.approx(errors.mean().item(), rel=1e-4)
    assert 0.01 < estimate < 0.99
    found = torch.cat([gradients[shard] for shard in range(shards)]).double()
    torch.testing.assert_close(found, leaf.grad, rtol=1e-3, atol=2e-4 * leaf.grad.abs().max().item())


def test_the_gradient_goes_through_the_largest_magnitude():
    """Which scales all features: longer by a factor, they give the same estimate."""
    problem = make_problem(ToySource(61, classes=CLASSES), shards=3)
    features = features_of(61)
    _, gradients = estimate_and_gradients(features, problem)
    found = torch.cat([gradients[shard] for shard in range(3)])
    size = (found * features).abs().sum()
    assert (found * features).sum().abs() < 1e-4 * size
    peak = features.argmax()
    without = found.flatten().clone()
    without[peak] = 0
    assert (without * features.flatten()).sum().abs() > 1e-2 * size


def test_a_negative_feature_may_be_the_largest():
    problem = make_problem(ToySource(40, classes=CLASSES), shards=4)
    features = -features_of(40)
    leaf = features.double().requires_grad_()
    slow_errors(leaf, problem.source.labels).sum().backward()
    _, gradients = estimate_and_gradients(features, problem)
    found = torch.cat([gradients[shard] for shard in range(4)]).double()
    torch.testing.assert_close(found, leaf.grad, rtol=1e-3, atol=2e-4 * leaf.grad.abs().max().item())


def test_a_sample_does_not_vote_for_itself():
    """Of two samples at one place, each takes the other one for sure; with votes of their own they would be torn."""
    source = ToySource(4, classes=2)
    features = torch.tensor([[0.0, 0.0], [0.0, 0.0], [1.0, 1.0], [1.0, 1.0]])
    estimate, gradients = estimate_and_gradients(features, make_problem(source, shards=2), 0.1)
    assert estimate == pytest.approx(0, abs=1e-6)
    assert all(part.isfinite().all() for part in gradients.values())


def test_a_sample_without_neighbours_is_an_error():
    source = ToySource(4, classes=2)
    features = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
    estimate, gradients = estimate_and_gradients(features, make_problem(source, shards=2), 0.01)
    assert estimate == pytest.approx(0.5)
    assert all(part.isfinite().all() for part in gradients.values())


def test_a_feature_that_is_not_finite_is_refused():
    features = features_of(40)
    features[17, 2] = torch.nan
    with pytest.raises(HpculeError, match="not finite"):
        estimate_and_gradients(features, make_problem(ToySource(40, classes=CLASSES)))


def on_a_rank(world, n, shards):
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        small_blocks(patch)
        estimate, gradients = estimate_and_gradients(features_of(n), make_problem(ToySource(n), world, shards=shards))
    return estimate, {shard: part.numpy() for shard, part in gradients.items()}


@pytest.mark.parametrize(("n", "shards"), [(61, 3), (90, 4)])
def test_two_ranks_and_one_find_the_same_bits(pool, alone, n, shards):
    estimate, gradients = on_a_rank(alone, n, shards)
    found = pool.run(on_a_rank, n, shards)
    assert [part[0] for part in found] == [estimate, estimate]
    assert sorted([*found[0][1], *found[1][1]]) == list(range(shards))
    for _, parts in found:
        for shard, part in parts.items():
            assert part.tobytes() == gradients[shard].tobytes()


class Largest(TorchDispatchMode):
    """The number of values of the largest tensor that is made."""

    def __init__(self):
        super().__init__()
        self.values = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor):
            self.values = max(self.values, made.numel())
        return made


def test_nothing_of_the_size_of_all_pairs_is_ever_made(monkeypatch):
    """Nor of a block's pairs times the features."""
    rows, columns, n, dimension = 8, 16, 400, 20
    monkeypatch.setattr(kernel_posterior, "ROWS", rows)
    monkeypatch.setattr(kernel_posterior, "COLUMNS", columns)
    features = features_of(n, dimension)
    problem = make_problem(ToySource(n, classes=CLASSES), shards=10)
    with Largest() as largest:
        estimate_and_gradients(features, problem)
    of_a_shard = n // 10 * (dimension + 3)
    assert largest.values <= max(rows * columns, of_a_shard)
    assert of_a_shard < rows * columns * dimension < n * n
