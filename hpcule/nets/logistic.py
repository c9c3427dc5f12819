"""Multinomial logistic regression, fitted to its optimum."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

ITERATIONS = 100
DECAY = 1e-4
"""Penalty on the squared weights, which gives linearly separable data a finite optimum."""


def logistic_regression(values: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Weights [d, classes] and biases [classes] of the least mean cross-entropy, by L-BFGS from 0.

    Args:
        values: float32 [n, d]; of about unit size and centred, the search is short.
        labels: int64 [n].
        classes: how many there may be.
    """
    weights = torch.zeros(values.shape[1], classes, device=values.device, requires_grad=True)
    bias = torch.zeros(classes, device=values.device, requires_grad=True)
    search = torch.optim.LBFGS([weights, bias], max_iter=ITERATIONS, line_search_fn="strong_wolfe")

    def loss() -> float:
        search.zero_grad()
        result = functional.cross_entropy(values @ weights + bias, labels) + DECAY * weights.square().sum()
        torch.autograd.backward(result)
        return float(result.detach())

    search.step(loss)  # type: ignore[no-untyped-call]
    return weights.detach(), bias.detach()
