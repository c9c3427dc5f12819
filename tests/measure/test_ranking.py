from __future__ import annotations

import pytest
import torch

from hpcule.measure.ranking import mean_area_under_curve


def by_pairs(logits, labels):
    """Mean over classes of the share of pairs that are in the right order, by softmax; slow and obvious."""
    probabilities, areas = logits.double().softmax(1), []
    for label in labels.unique():
        first, second = probabilities[labels == label, label], probabilities[labels != label, label]
        wins = [1.0 if a > b else 0.5 if a == b else 0.0 for a in first for b in second]
        areas.append(sum(wins) / len(wins))
    return sum(areas) / len(areas)


@pytest.mark.parametrize(("classes", "digits"), [(2, 0), (3, 6), (7, 6)])
def test_the_area_is_the_share_of_pairs_in_order(classes, digits):
    # With two classes and whole numbers many pairs are ties.
    generator = torch.Generator().manual_seed(classes)
    labels = torch.randint(0, classes, (90,), generator=generator)
    logits = torch.randn(90, classes, generator=generator).round(decimals=digits)
    logits[torch.arange(90), labels] += 1
    assert mean_area_under_curve(logits, labels) == pytest.approx(by_pairs(logits, labels))


def test_a_shifted_threshold_does_not_change_the_area():
    labels = torch.tensor([0] * 50 + [1] * 50)
    scores = torch.cat([torch.linspace(0, 1, 50), torch.linspace(2, 3, 50)])
    for threshold in (1.5, -1):
        assert mean_area_under_curve(torch.stack([torch.zeros(100), scores - threshold], 1), labels) == 1.0


def test_the_same_score_for_all_ranks_nothing():
    labels = torch.tensor([0] * 90 + [1] * 10)
    assert mean_area_under_curve(torch.tensor([[1.0, 0.0]]).repeat(100, 1), labels) == 0.5


def test_scores_that_are_sure_are_still_ranked():
    # As float32 probabilities all of them would be 1.
    logits = torch.tensor([[0.0, 40.0], [0.0, 50.0], [0.0, 60.0], [0.0, 70.0]])
    assert mean_area_under_curve(logits, torch.tensor([0, 0, 1, 1])) == 1.0


def test_one_class_has_no_area_and_absent_classes_do_not_count():
    logits = torch.eye(3).repeat(2, 1)
    assert mean_area_under_curve(logits, torch.zeros(6, dtype=torch.long)) is None
    labels = torch.tensor([0, 1, 1, 0, 1, 1])
    assert mean_area_under_curve(logits, labels) == pytest.approx(by_pairs(logits, labels))
