from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from toys import alone as process

from hpcule.config.errors import DivergedError, StoppedError
from hpcule.nets.seeded import seeded_weights
from hpcule.victim.countermeasures.fit import Fit
from hpcule.victim.keeper import Keeper
from hpcule.world.keyed import key, order
from hpcule.world.signals import StopFlag

SAMPLES, PURPOSE = 23, 7
FIT = Fit(steps=9, batch=8, rate=0.05, clip_norm=0.5)
VALUES = torch.from_numpy(np.random.default_rng(0).normal(size=(SAMPLES, 4)).astype(np.float32))


def build():
    with seeded_weights(3):
        return torch.nn.Linear(4, 2)


def fit_on(world, keeper=None):
    """Weights that are fitted, and the steps that it took."""
    steps = []

    def loss(network, batch):
        steps.append(batch.step)
        return network(VALUES[batch.numbers[batch.own]]).float().square().mean(1).sum()

    network = FIT.run(build(), loss, "a test", SAMPLES, PURPOSE, world, keeper or Keeper(world))
    assert not network.training
    return network.weight.tolist(), steps


def slow_fit():
    network = build()
    optimizer = torch.optim.Adam(network.parameters())
    for step in range(9):
        epoch, number = divmod(step, 3)
        numbers = order(key(PURPOSE, epoch), np.arange(SAMPLES))
        cuts = [0, 8, 16, 23]
        optimizer.param_groups[0]["lr"] = 0.05 * (1 + math.cos(math.pi * step / 9)) / 2
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocasts()):
            network(VALUES[numbers[cuts[number] : cuts[number + 1]]]).float().square().mean().backward()
        norm = math.sqrt(sum(float(weights.grad.square().sum()) for weights in network.parameters()))
        for weights in network.parameters():
            weights.grad *= min(1, 0.5 / norm)
        optimizer.step()
    return network.weight.tolist()


def autocasts():
    from hpcule.world.precision import has_fast_bf16

    return has_fast_bf16(torch.device("cpu"))


def test_a_fit_is_adam_along_a_cosine(alone):
    weights, steps = fit_on(alone)
    assert steps == list(range(9))
    np.testing.assert_allclose(weights, slow_fit(), atol=1e-3)
    assert fit_on(alone)[0] == weights


def test_ranks_fit_together(alone, pool):
    (first, steps), (second, _) = pool.run(fit_on)
    assert first == second
    assert steps == list(range(9))
    np.testing.assert_allclose(first, fit_on(alone)[0], atol=5e-3)


class Stop(StopFlag):
    """Set from the third look on."""

    def __init__(self):
        super().__init__(signals=())
        self.looks = 0

    def __bool__(self):
        self.looks += 1
        return self.looks > 2


def test_a_stopped_fit_goes_on_and_what_is_fitted_is_found(tmp_path):
    world, path = process(), tmp_path / "state"
    with pytest.raises(StoppedError):
        fit_on(world, Keeper(world, path, Stop()))
    weights, steps = fit_on(world, Keeper(world, path, StopFlag(signals=())))
    assert steps[0] > 0
    assert steps == list(range(steps[0], 9))
    expected, _ = fit_on(world)
    assert weights == expected
    assert fit_on(world, Keeper(world, path, StopFlag(signals=()))) == (expected, [])


def test_a_fit_that_diverged_is_refused(alone):
    with pytest.raises(DivergedError, match="the network of a test diverged"):
        FIT.run(build(), lambda network, batch: network(VALUES).sum() * math.nan, "a test", 5, 0, alone, Keeper(alone))
