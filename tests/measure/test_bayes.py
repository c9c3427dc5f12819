from __future__ import annotations

import math
from statistics import NormalDist

import pytest
import torch

from hpcule.measure.bayes import SCALES, bayes_error, cover_hart


def gaussians(distance, n=2000, dimensions=1, classes=2):
    """Classes `distance` deviations apart along the first axis, and the Bayes error of two of them."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % classes
    values = torch.randn(n, dimensions, generator=generator)
    values[:, 0] += distance * labels
    return values, labels, NormalDist().cdf(-distance / 2)


@pytest.mark.slow
@pytest.mark.parametrize("distance", [1.0, 2.0, 4.0])
@pytest.mark.parametrize("dimensions", [1, 3])
def test_the_error_of_two_gaussians_is_found(distance, dimensions):
    values, labels, truth = gaussians(distance, dimensions=dimensions)
    found = bayes_error(values, labels, 2)
    assert found["kernel"] == pytest.approx(truth, abs=0.03)
    assert found["at_least"] <= truth + 0.03
    assert truth - 0.03 <= found["neighbour"] <= 2 * truth * (1 - truth) + 0.03  # Cover and Hart


def test_classes_that_nothing_tells_apart_are_guessed():
    values, _, _ = gaussians(0.0, n=1200)
    labels = torch.randint(3, (1200,), generator=torch.Generator().manual_seed(1))
    found = bayes_error(values, labels, 3)
    assert found["kernel"] > 0.5
    assert found["neighbour"] == pytest.approx(2 / 3, abs=0.04)


def test_the_bound_of_neighbours():
    assert cover_hart(0.0, 10) == 0.0
    assert cover_hart(0.9, 10) == pytest.approx(0.9)
    assert cover_hart(0.95, 10) == pytest.approx(0.9)  # more than guessing errs, by luck
    for truth in (0.05, 0.2, 0.4):
        # Two classes whose posteriors are the same everywhere are those for which the bound is tight.
        assert cover_hart(2 * truth * (1 - truth), 2) == pytest.approx(truth)


def test_the_kernel_is_the_leave_one_out_posterior_of_the_likeliest_bandwidth():
    values, labels, _ = gaussians(1.5, n=40, dimensions=2, classes=3)
    points = values.tolist()
    near = sorted(min(math.dist(a, b) for b in points[:i] + points[i + 1 :]) for i, a in enumerate(points))
    unit = near[(len(near) - 1) // 2]
    best = (-math.inf, 0.0)
    for scale in SCALES:
        likelihood, error = 0.0, 0.0
        for i in range(40):
            masses = [0.0, 0.0, 0.0]
            distances = [math.dist(points[i], points[k]) ** 2 for k in range(40)]
            nearest = min(distance for k, distance in enumerate(distances) if k != i)
            for k in range(40):
                if k != i:
                    masses[int(labels[k])] += math.exp((nearest - distances[k]) / (2 * (unit * scale) ** 2))
            shares = [mass / sum(masses) for mass in masses]
            likelihood += math.log(max(shares[int(labels[i])], 1e-6)) / 40
            error += (1 - max(shares)) / 40
        best = max(best, (likelihood, error))
    assert bayes_error(values, labels, 3)["kernel"] == pytest.approx(best[1], rel=1e-4)


def test_the_answer_knows_neither_scale_nor_place():
    values, labels, _ = gaussians(2.0, n=300, dimensions=3)
    first, second = bayes_error(values, labels, 2), bayes_error(255 * values + 100, labels, 2)
    assert first == pytest.approx(second, abs=1e-5)


def test_identical_samples_are_no_division_by_zero():
    values = torch.zeros(30, 2)
    found = bayes_error(values, torch.arange(30) % 3, 3)
    assert math.isfinite(found["kernel"])
