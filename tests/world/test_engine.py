import torch
from torch import nn
from torch.nn import functional

from hpcule.world.engine import DdpEngine, average_buffers, distributed


def make_network(norm=False):
    torch.manual_seed(0)
    layers = [nn.Linear(6, 8), nn.BatchNorm1d(8)] if norm else [nn.Linear(6, 8)]
    return nn.Sequential(*layers, nn.Tanh(), nn.Linear(8, 3)).double()


def make_batch():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(7, 6, generator=generator, dtype=torch.float64), torch.arange(7) % 3


def gradients(world, cuts):
    """Of the mean loss over a batch, rank r working on the samples cuts[r]..cuts[r + 1]."""
    network = make_network()
    inputs, labels = make_batch()
    mine = slice(cuts[world.rank], cuts[world.rank + 1])
    parallel = distributed(network, world)
    logits = parallel(inputs[mine])
    loss = functional.cross_entropy(logits, labels[mine], reduction="sum")
    (loss * world.size / len(labels)).backward()
    return [parameter.grad.numpy() for parameter in network.parameters()]


def test_an_unevenly_split_batch_gives_the_gradient_of_the_whole(pool, alone):
    expected = gradients(alone, [0, 7])
    for cuts in ([0, 4, 7], [0, 6, 7], [0, 1, 7]):
        first, second = pool.run(gradients, cuts)
        for one, other, whole in zip(first, second, expected, strict=True):
            assert (one == other).all(), "all ranks take the same step"
            torch.testing.assert_close(torch.from_numpy(one), torch.from_numpy(whole), rtol=1e-12, atol=1e-14)


def test_a_world_of_one_needs_no_wrapping(alone):
    network = make_network()
    assert distributed(network, alone) is network


def gradient_of_parts(world, cuts):
    """Of the mean loss over a batch, each rank working on its samples in two parts; and before the last part."""
    network = make_network()
    engine = DdpEngine(network, torch.optim.SGD(network.parameters(), lr=1.0), world)
    before = [parameter.detach().clone() for parameter in network.parameters()]
    inputs, labels = make_batch()
    mine = torch.arange(cuts[world.rank], cuts[world.rank + 1])
    for number, part in enumerate(mine.tensor_split(2)):
        with engine.part(last=number == 1):
            loss = functional.cross_entropy(engine.network(inputs[part]), labels[part], reduction="sum")
            engine.backward(loss * world.size / len(labels))
        if number == 0:
            local = [parameter.grad.clone().numpy() for parameter in network.parameters()]
    engine.step()
    forgotten = all(parameter.grad is None for parameter in network.parameters())
    return (
        [(one - two.detach()).numpy() for one, two in zip(before, network.parameters(), strict=True)],
        local,
        forgotten,
    )


def test_parts_add_up_and_only_the_last_meets_the_other_ranks(pool, alone):
    expected = gradients(alone, [0, 7])
    assert_close(gradient_of_parts(alone, [0, 7])[0], expected)
    for cuts in ([0, 4, 7], [0, 5, 7]):
        (first, first_local, forgotten), (second, second_local, _) = pool.run(gradient_of_parts, cuts)
        assert_close(first, expected)
        assert_close(second, expected)
        assert any((one != other).any() for one, other in zip(first_local, second_local, strict=True))
        assert forgotten


def assert_close(found, expected):
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(torch.from_numpy(one), torch.from_numpy(other), rtol=1e-12, atol=1e-14)


def clipped_step(world, clip_norm):
    """One step of rate 1, on 4 and 3 samples of a batch."""
    network = make_network()
    before = [parameter.detach().clone() for parameter in network.parameters()]
    engine = DdpEngine(network, torch.optim.SGD(network.parameters(), lr=1.0), world, clip_norm=clip_norm)
    inputs, labels = make_batch()
    mine = torch.arange(7).tensor_split(world.size)[world.rank]
    with engine.part(last=True):
        loss = functional.cross_entropy(engine.network(inputs[mine]), labels[mine], reduction="sum")
        engine.backward(loss * world.size / len(labels))
    engine.step()
    return [(one - two.detach()).numpy() for one, two in zip(before, network.parameters(), strict=True)]


def test_the_mean_gradient_of_the_whole_batch_is_clipped(pool, alone):
    gradient = gradients(alone, [0, 7])
    norm = sum(float((part**2).sum()) for part in gradient) ** 0.5
    for ratio in (0.1, 2.0):
        expected = [part * min(1.0, ratio) for part in gradient]
        for found in pool.run(clipped_step, ratio * norm):
            for one, other in zip(found, expected, strict=True):
                torch.testing.assert_close(torch.from_numpy(one), torch.from_numpy(other), rtol=1e-4, atol=1e-12)


def average(world):
    network = make_network(norm=True)
    norm = network[1]
    norm.running_mean += world.rank + 1.0
    norm.running_var *= 10.0**world.rank
    norm.num_batches_tracked += world.rank
    average_buffers(network, world)
    return norm.running_mean.tolist(), norm.running_var.tolist(), norm.num_batches_tracked.item()


def test_running_statistics_are_averaged_over_the_ranks(pool, alone):
    first, second = pool.run(average)
    assert first[:2] == second[:2] == ([1.5] * 8, [5.5] * 8)
    assert (first[2], second[2]) == (0, 1), "counters are left alone"
    assert average(alone) == ([1.0] * 8, [1.0] * 8, 0)
