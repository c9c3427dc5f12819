import torch
from torch import nn

from hpcule.nets.running_statistics import running_statistics


def test_batch_norms_evaluate_inside_and_all_else_trains():
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 2), nn.BatchNorm1d(2))
    network[4].eval()
    network(torch.randn(8, 3))
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    assert not torch.equal(before["1.running_mean"], torch.zeros(4))
    with running_statistics(network):
        assert [layer.training for layer in network] == [True, False, True, True, False]
        one = network[:2](torch.ones(1, 3))
    expected = (network[0](torch.ones(3)) - before["1.running_mean"]) / (before["1.running_var"] + 1e-5).sqrt()
    torch.testing.assert_close(one[0], expected)
    assert [layer.training for layer in network] == [True, True, True, True, False]
    assert all(torch.equal(buffer, before[name]) for name, buffer in network.named_buffers())
