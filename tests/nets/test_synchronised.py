import numpy as np
import pytest
import torch
from torch import nn

from hpcule.nets import build
from hpcule.nets.synchronised import SynchronisedBatchNorm, synchronise


def make_norm():
    norm = nn.BatchNorm2d(5, momentum=0.3).double()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        norm.weight.copy_(torch.randn(5, generator=generator))
        norm.bias.copy_(torch.randn(5, generator=generator))
    return nn.Sequential(norm)


def make_batch():
    """Images, and the gradient of some loss by what comes out."""
    generator = torch.Generator().manual_seed(1)
    shape = (7, 5, 4, 3)
    images = 3 + 2 * torch.randn(shape, generator=generator, dtype=torch.float64)
    return images, torch.randn(shape, generator=generator, dtype=torch.float64)


def normalised(world, cuts):
    """Two training steps of rank r on the samples cuts[r]..cuts[r + 1]: all that comes of it."""
    network = make_norm()
    synchronise(network, world)
    images, gradient = make_batch()
    mine = slice(cuts[world.rank], cuts[world.rank + 1])
    local = images[mine].clone().requires_grad_()
    for _ in range(2):
        output = network(local)
        output.backward(gradient[mine])
    state = [tensor.numpy() for tensor in network.state_dict().values()]
    gradients = [parameter.grad.numpy() for parameter in network.parameters()]
    return output.detach().numpy(), local.grad.numpy(), gradients, state


@pytest.mark.parametrize("cuts", [[0, 4, 7], [0, 1, 7], [0, 6, 7]])
def test_it_is_the_batch_norm_of_the_whole_batch(pool, alone, cuts):
    output, images, weights, state = normalised(alone, [0, 7])
    ranks = pool.run(normalised, cuts)
    close = {"rtol": 1e-10, "atol": 1e-12}
    np.testing.assert_allclose(np.concatenate([rank[0] for rank in ranks]), output, **close)
    np.testing.assert_allclose(np.concatenate([rank[1] for rank in ranks]), images, **close)
    for number, whole in enumerate(weights):
        np.testing.assert_allclose(sum(rank[2][number] for rank in ranks), whole, **close)
    for rank in ranks:
        for found, whole in zip(rank[3], state, strict=True):
            np.testing.assert_allclose(found, whole, **close)


def test_a_world_of_one_keeps_its_own(alone):
    network = make_norm()
    synchronise(network, alone)
    assert type(network[0]) is nn.BatchNorm2d


def replaced(world):
    """What a network is made of afterwards, and how its state is named."""
    network = build("resnet-tiny", channels=3, classes=3, size=(8, 8), seed=0)
    before = list(network.parameters())
    names = list(network.state_dict())
    synchronise(network, world)
    same = all(one is other for one, other in zip(before, network.parameters(), strict=True))
    kinds = {type(module).__name__ for module in network.modules()}
    return same, list(network.state_dict()) == names, "BatchNorm2d" in kinds, SynchronisedBatchNorm.__name__ in kinds


def test_every_norm_of_a_network_is_replaced_and_its_state_keeps_its_names(pool):
    assert pool.run(replaced) == [(True, True, False, True)] * 2


def evaluated_by_one(world):
    """In evaluation a rank needs no other."""
    network = make_norm()
    synchronise(network, world)
    network.eval()
    return network(make_batch()[0]).detach().numpy() if world.leads else None


def test_evaluation_takes_running_statistics_and_no_peers(pool):
    expected = make_norm().eval()(make_batch()[0]).detach().numpy()
    np.testing.assert_allclose(pool.run(evaluated_by_one)[0], expected, rtol=1e-12)


def constant_channel(world):
    """Of bf16 images, as autocast makes them."""
    network = nn.Sequential(nn.BatchNorm2d(2))
    synchronise(network, world)
    images = torch.full((3, 2, 2, 2), 0.7, dtype=torch.bfloat16, requires_grad=True)
    output = network(images)
    output.float().sum().backward()
    return str(output.dtype), float(output.float().abs().max()), bool(torch.isfinite(images.grad).all())


def test_a_constant_channel_is_harmless(pool):
    for dtype, largest, finite in pool.run(constant_channel):
        assert dtype == "torch.bfloat16"
        assert largest < 0.1
        assert finite
