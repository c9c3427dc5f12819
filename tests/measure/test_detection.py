from __future__ import annotations

import pytest
import torch

from hpcule.measure.detection import detection


def noise(n=600, d=20):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(0))


def test_a_pattern_of_the_class_is_noticed_by_both():
    values, labels = noise(), torch.arange(600) // 2 % 3
    values[torch.arange(600), labels] += 6
    found = detection(values, labels, 3)
    assert found["linear"] > 0.98
    assert found["two_layers"] > 0.98


def test_what_is_not_linear_is_noticed_by_two_layers_alone():
    values = noise()
    labels = (values[:, 0] * values[:, 1] > 0).long()
    values[:, :2] *= 4
    found = detection(values, labels, 2)
    assert found["linear"] < 0.62
    assert found["two_layers"] > 0.8


def test_nothing_is_noticed_of_samples_that_say_nothing():
    found = detection(noise(), torch.arange(600) % 2, 2)
    assert found["linear"] == pytest.approx(0.5, abs=0.12)
    assert found["two_layers"] == pytest.approx(0.5, abs=0.12)


def test_it_is_measured_on_samples_that_were_not_fitted():
    values, labels = noise(100, 400), torch.arange(100) // 2 % 2
    before = detection(values, labels, 2)
    assert before == detection(values, labels, 2)
    assert before["linear"] < 0.9
    assert detection(values[:6], labels[:6], 2)["linear"] in (0.0, 0.5, 1.0)
