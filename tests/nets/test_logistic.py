from __future__ import annotations

import torch
from torch.nn import functional

from hpcule.nets.logistic import DECAY, logistic_regression


def test_the_gradient_vanishes_at_what_is_found():
    generator = torch.Generator().manual_seed(0)
    values, labels = torch.randn(60, 4, generator=generator), torch.randint(0, 3, (60,), generator=generator)
    weights, bias = logistic_regression(values, labels, 3)
    residuals = torch.softmax(values @ weights + bias, dim=1) - functional.one_hot(labels, 3)
    assert (values.T @ residuals / 60 + 2 * DECAY * weights).abs().max() < 1e-4
    assert residuals.mean(0).abs().max() < 1e-4


def test_what_a_line_can_tell_apart_is_told_apart():
    values = torch.tensor([[-2.0, 0], [-1, 0], [1, 0], [2, 0]])
    weights, bias = logistic_regression(values, torch.tensor([0, 0, 2, 2]), 3)
    assert (values @ weights + bias).argmax(1).tolist() == [0, 0, 2, 2]
