from __future__ import annotations

import numpy as np
import torch
from toys import ToySource

from hpcule.victim.countermeasures.projection import fit_directions, project
from hpcule.victim.published import Published

CPU = torch.device("cpu")


def pixels(published):
    samples, labels = published.take(np.arange(len(published)))
    return samples.float() / 255, labels


def test_nothing_is_left_along_the_directions():
    train = Published(ToySource(90), resident=2**20)
    directions = fit_directions(train, 0, CPU)
    assert directions.shape == (192, 3)
    torch.testing.assert_close(directions.T @ directions, torch.eye(3))
    images, _ = pixels(train)
    left = project(images, directions)
    assert left.shape == images.shape
    assert (left.flatten(1) @ directions).abs().max() < 1e-5
    torch.testing.assert_close(project(left, directions), left, atol=1e-5, rtol=0)


def test_the_directions_tell_classes_apart():
    train = Published(ToySource(90), resident=2**20)
    directions = fit_directions(train, 0, CPU)
    images, labels = pixels(train)
    means = torch.stack([(images.flatten(1) @ directions)[labels == k].mean(0) for k in range(3)])
    left = project(images, directions).flatten(1)
    whole = torch.stack([images.flatten(1)[labels == k].mean(0) for k in range(3)])
    rest = torch.stack([left[labels == k].mean(0) for k in range(3)])
    assert torch.pdist(means).min() > 0.5 * torch.pdist(whole).min()
    assert torch.pdist(rest).max() < torch.pdist(whole).max()


def test_the_fit_is_logistic_regression():
    """A step of full gradient descent from zero: towards the class means."""
    train = Published(ToySource(30), resident=2**20)
    images, labels = pixels(train)
    weights = torch.zeros(3, 192, requires_grad=True)
    optimizer = torch.optim.SGD([weights], lr=0.1)
    for epoch in range(20):
        optimizer.param_groups[0]["lr"] = 0.1 * (1 if epoch < 10 else 0.1 if epoch < 15 else 0.01)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(images.flatten(1) @ weights.T, labels).backward()
        optimizer.step()
    expected = torch.nn.functional.normalize(weights.detach(), dim=1)
    directions = fit_directions(train, 0, CPU)
    torch.testing.assert_close(expected @ directions @ directions.T, expected, atol=1e-4, rtol=0)
