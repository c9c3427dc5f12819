"""How easily anybody notices that samples are protected: simple classifiers recognise classes too well.

Zhu et al., "Detection and Defense of Unlearnable Examples", AAAI 2024, arXiv 2312.08898: a linear classifier, or a
network of two layers, reaches an accuracy on held-out protected samples that it never has on clean ones.
"""

from __future__ import annotations

from typing import TypedDict

import torch
from torch import Tensor, nn
from torch.nn import functional

from hpcule.measure.accuracy import Headline, recognised
from hpcule.measure.structure import centred
from hpcule.nets.logistic import logistic_regression
from hpcule.nets.seeded import seeded_weights

HELD_OUT = 5
"""One in this number of samples is held out."""
HIDDEN, STEPS, BATCH, LEARNING_RATE = 64, 400, 128, 1e-3


class Detection(TypedDict):
    """The headline measure in [0, 1] on held-out samples of a linear classifier and of a network of two layers."""

    linear: float
    two_layers: float


def detection(values: Tensor, labels: Tensor, classes: int) -> Detection:
    """Fit both to four fifths of the samples, drawn at random, and test them on the others.

    Args:
        values: [n, d], of published samples or of clean ones.
        labels: int64 [n].
        classes: how many there may be.
    """
    scaled, order = centred(values), torch.randperm(len(values), generator=_generator())
    scaled /= scaled.std().clamp_min(1e-12)
    held_out, fit = order[::HELD_OUT], order[torch.arange(len(order)) % HELD_OUT > 0]
    weights, bias = logistic_regression(scaled[fit], labels[fit], classes)
    network = _two_layers(scaled[fit], labels[fit], classes)
    with torch.no_grad():
        answers = (scaled[held_out] @ weights + bias, network(scaled[held_out]))
    measure, own = Headline.of(labels.numpy()).measure, labels[held_out].numpy()
    linear, two_layers = (recognised(logits.argmax(1).numpy(), own, measure) for logits in answers)
    return {"linear": linear, "two_layers": two_layers}


def _two_layers(values: Tensor, labels: Tensor, classes: int) -> nn.Module:
    with seeded_weights(0):
        network = nn.Sequential(nn.Linear(values.shape[1], HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, classes))
    optimizer, generator = torch.optim.Adam(network.parameters(), LEARNING_RATE), _generator()
    for _ in range(STEPS):
        batch = torch.randint(len(values), (BATCH,), generator=generator)
        optimizer.zero_grad()
        torch.autograd.backward(functional.cross_entropy(network(values[batch]), labels[batch]))
        optimizer.step()
    return network


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)
