"""Victims whose weights DeepSpeed spreads over two ranks, compared with DDP; in processes of their own."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from pool import Pool
from toys import ToySource

from hpcule.victim.config import VictimConfig
from hpcule.victim.countermeasures.table import Countermeasures
from hpcule.victim.published import Published
from hpcule.victim.supervised import train_network

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("deepspeed") is None, reason='DeepSpeed is missing: pip install "hpcule[deepspeed]"'
    ),
]
SETTINGS = {"network": "convnet", "steps": 4, "batch": 23, "micro_batch": 5, "learning_rate": 0.05, "precision": "fp32"}
TESTS = 1001
"""Samples of the test set, of which the first rank has one more than fits a batch, and the second has not."""


@pytest.fixture(scope="module")
def ranks():
    with Pool() as pool:
        yield pool


def trained(world, settings, steps="crop-flip"):
    """Accuracies by epoch, and weights, of a victim."""
    config = VictimConfig(**{**SETTINGS, **settings}, countermeasures=Countermeasures.parse(steps))
    train, test = (Published(ToySource(count, seed=seed), resident=2**30) for seed, count in enumerate((69, TESTS)))
    network, result = train_network(config, train, test, world, 0)
    weights = torch.cat([values.detach().reshape(-1) for values in network.parameters()])
    return [(epoch.train, epoch.test) for epoch in result.curve], weights.tolist(), str(weights.dtype)


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ({}, "crop-flip"),
        ({"clip_norm": 0.1}, "plain"),
        ({"batch_norm": "synchronised"}, "plain"),
        ({}, "adversarial-4"),
    ],
)
def test_partitioned_weights_learn_as_whole_ones(ranks, settings, steps):
    whole = ranks.run(trained, settings, steps)
    cut = ranks.run(trained, {**settings, "engine": "deepspeed", "zero": 3}, steps)
    for (curve, weights, _), (other_curve, other_weights, _) in zip(cut, whole, strict=True):
        assert curve == [pytest.approx(epoch, abs=0.003) for epoch in other_curve]
        assert weights == pytest.approx(other_weights, rel=1e-3, abs=1e-5)


def test_bf16_weights_end_as_float32(ranks):
    settings = {"engine": "deepspeed", "zero": 3, "offload": "parameters", "precision": "bf16-weights"}
    first, second = ranks.run(trained, settings)
    assert first == second
    assert first[2] == "torch.float32"
    expected = torch.tensor(ranks.run(trained, {})[0][1])
    torch.testing.assert_close(torch.tensor(first[1]), expected, rtol=0.05, atol=0.04)
