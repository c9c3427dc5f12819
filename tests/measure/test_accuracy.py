import math

import numpy as np
import pytest

from hpcule.measure.accuracy import Headline, Summary, interval, paired_difference, summarise, wilson


def test_interval_of_two_values_from_the_table():
    # The t table: 12.706 for one degree of freedom at 95 %.
    low, high = interval([0.4, 0.6])
    half = 12.7062 * math.sqrt(0.02) / math.sqrt(2)
    assert (low, high) == pytest.approx((0.5 - half, 0.5 + half), abs=1e-5)


def test_interval_of_four_values_from_the_table():
    # 3.182 for three degrees of freedom at 95 %, 5.841 at 99 %.
    values = [0.70, 0.72, 0.74, 0.72]
    error = np.std(values, ddof=1) / 2
    assert interval(values) == pytest.approx((0.72 - 3.1824 * error, 0.72 + 3.1824 * error), abs=1e-6)
    assert interval(values, 0.99) == pytest.approx((0.72 - 5.8409 * error, 0.72 + 5.8409 * error), abs=1e-6)


def test_one_value_has_no_interval():
    assert interval([0.5]) is None
    assert summarise([0.5]) == Summary(0.5, None, 1)


def test_interval_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(1000):
        low, high = interval(rng.normal(3.0, 2.0, 3).tolist())
        covered += low <= 3.0 <= high
    assert 0.93 <= covered / 1000 <= 0.97


def test_accuracies_stay_probabilities_and_other_values_are_left_alone():
    assert summarise([0.9, 1.0]).interval[1] == 1.0
    assert summarise([0.0, 0.1]).interval[0] == 0.0
    assert interval([0.9, 1.0])[1] > 1.0


def test_paired_difference_removes_what_the_seeds_share():
    clean, protected = [0.70, 0.80, 0.60], [0.30, 0.41, 0.19]
    difference = paired_difference(clean, protected)
    assert difference.mean == pytest.approx(0.40)
    assert difference.n == 3
    low, high = difference.interval
    assert 0.37 < low < 0.40 < high < 0.43


def test_paired_difference_keeps_its_sign():
    low, high = paired_difference([0.0, 0.1], [1.0, 0.9]).interval
    assert low < -1
    assert high > -1


def test_pairs_must_match():
    with pytest.raises(ValueError, match="shorter"):
        paired_difference([0.5, 0.6], [0.5])


def test_wilson_solves_its_equation():
    # The bounds are the p at which |share - p| is exactly z standard errors of p.
    for correct, total in [(7, 10), (1, 156), (7200, 10000)]:
        for bound in wilson(correct, total):
            error = math.sqrt(bound * (1 - bound) / total)
            assert abs(correct / total - bound) / error == pytest.approx(1.959964, abs=1e-5)


def test_wilson_at_the_ends():
    assert wilson(0, 20)[0] == 0.0
    assert 0 < wilson(0, 20)[1] < 0.2
    assert wilson(20, 20)[1] == 1.0
    assert 0.8 < wilson(20, 20)[0] < 1


@pytest.mark.parametrize(
    ("sizes", "measure", "chance"),
    [
        ([50, 50], "accuracy", 0.5),
        # Always naming the largest class has to close a fifth of the gap from 1 / K to 1.
        ([59, 41], "accuracy", 0.59),
        ([61, 39], "balanced accuracy", 0.5),
        ([437, 210, 133], "balanced accuracy", 1 / 3),
        ([0, 61, 39], "balanced accuracy", 0.5),
        ([0, 40], "accuracy", 1.0),
    ],
)
def test_where_classes_are_unequal_balanced_accuracy_is_the_headline(sizes, measure, chance):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    headline = Headline.of(labels)
    assert (headline.measure, headline.chance) == (measure, pytest.approx(chance))
    assert headline.effective <= len(labels)
    assert (headline.effective == len(labels)) == (measure == "accuracy")


def test_balanced_accuracy_varies_as_an_accuracy_of_the_effective_number():
    labels = np.repeat(np.arange(3), [80, 15, 5])
    right = np.random.default_rng(0).random((20_000, 100)) < 0.7
    balanced = np.mean([right[:, labels == label].mean(1) for label in range(3)], axis=0)
    assert balanced.var() == pytest.approx(0.7 * 0.3 / Headline.of(labels).effective, rel=0.05)
