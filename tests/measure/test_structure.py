from __future__ import annotations

import pytest
import torch
from sklearn.linear_model import LogisticRegression

from hpcule.measure.structure import class_share, linear_separability
from hpcule.nets.logistic import DECAY


def labelled(n=400, d=30, classes=4):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(n) // 2 % classes
    return torch.randn(n, d, generator=generator), labels, torch.randn(classes, d, generator=generator)


def test_class_constant_deltas_are_separable_and_all_of_a_class():
    _, labels, patterns = labelled()
    found = linear_separability(patterns[labels], labels, 4)
    assert found == {"fitted": 1.0, "held_out": 1.0}
    assert class_share(patterns[labels], labels) == pytest.approx(1)


def test_random_deltas_can_be_fitted_but_tell_nothing():
    noise, labels, _ = labelled(n=60, d=100)
    found = linear_separability(noise, labels, 4)
    assert found["fitted"] > 0.9
    assert found["held_out"] < 0.5
    noise, labels, _ = labelled(n=4000)
    assert class_share(noise, labels) < 0.01


def test_the_share_is_that_of_an_analysis_of_variance():
    noise, labels, patterns = labelled(n=4000)
    # Means of variance 0.25 beside noise of variance 1, up to the few patterns that were drawn.
    values = 0.5 * patterns[labels] + noise
    between = (0.5 * patterns - 0.5 * patterns.mean(0)).square().mean()
    assert class_share(values, labels) == pytest.approx(float(between / (between + 1)), abs=0.02)
    assert class_share(torch.ones(10, 3), torch.arange(10) % 2) == 0


def test_it_is_logistic_regression():
    noise, labels, patterns = labelled()
    values = 0.3 * patterns[labels] + noise
    found = linear_separability(values, labels, 4)
    scaled = (values - values.min()) / (values.max() - values.min())
    scaled = (scaled - scaled.mean(0)).numpy()
    order = torch.randperm(400, generator=torch.Generator().manual_seed(0)).numpy()
    fit, rest = order[::2], order[1::2]
    # sklearn sums over the samples and halves the penalty.
    reference = LogisticRegression(C=1 / (2 * DECAY * 200), max_iter=5000, tol=1e-8).fit(scaled[fit], labels[fit])
    assert found["fitted"] == pytest.approx(reference.score(scaled[fit], labels[fit]), abs=0.02)
    assert found["held_out"] == pytest.approx(reference.score(scaled[rest], labels[rest]), abs=0.02)
    assert found["held_out"] > 0.5
