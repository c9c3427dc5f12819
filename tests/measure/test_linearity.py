from __future__ import annotations

import pytest
import torch
from torch import nn

from hpcule.measure.linearity import RADII, linearity


def images_of(n=200, size=4):
    return torch.rand(n, 1, size, size, generator=torch.Generator().manual_seed(0))


class Margin(nn.Module):
    """Class 1 where the mean is above a half, by as much as it is; linear in the pixels."""

    def forward(self, images):
        above = images.flatten(1).mean(1) - 0.5
        return torch.stack([-above, above], dim=1)


class Checkers(nn.Module):
    """Class 1 where two pixels lie on different sides of a half: no line tells that."""

    def forward(self, images):
        product = -(images[:, 0, 0, 0] - 0.5) * (images[:, 0, 1, 1] - 0.5)
        return torch.stack([-product, product], dim=1)


def test_a_linear_network_is_explained_and_flips_at_its_margin():
    images = images_of(600).mul(0.8).add(0.1)
    means = images.flatten(1).mean(1)
    found = linearity(Margin(), images, (means > 0.5).long(), 2)
    assert found["explained"] > 0.9
    for radius in RADII:
        # Every value moves by the radius, and so does the mean.
        expected = float(((means - 0.5).abs() < radius / 255).float().mean())
        assert found["flipped"][str(radius)] == pytest.approx(expected)
    assert 0 < found["flipped"]["8"] < 1


def test_what_no_line_tells_is_not_explained():
    images = images_of()
    answers = Checkers()(images).argmax(1)
    found = linearity(Checkers(), images, answers, 2)
    assert found["explained"] < 0.7
    assert found["commonest"] < 0.6


def test_a_constant_is_explained_by_itself_and_flips_for_nobody():
    class Constant(nn.Module):
        def forward(self, images):
            return torch.tensor([1.0, 0.0]) + 0 * images.sum((1, 2, 3))[:, None]

    images = images_of(50)
    found = linearity(Constant(), images, torch.zeros(50, dtype=torch.long), 2)
    assert found["explained"] == found["commonest"] == 1.0
    assert set(found["flipped"].values()) == {0.0}


def test_where_nothing_is_recognised_nothing_flips():
    images = images_of(50)
    answers = Margin()(images).argmax(1)
    found = linearity(Margin(), images, 1 - answers, 2)
    assert set(found["flipped"].values()) == {0.0}
