import math

import numpy as np
import pytest
from scipy.stats import permutation_test, ttest_1samp

from hpcule.measure.accuracy import interval
from hpcule.study.paired import compare_paired, detectable, holm, sign_flip


def brute_force(differences):
    """Share of all sign vectors whose mean is as far from zero as the observed one."""
    observed, extreme = abs(math.fsum(differences)), 0
    for number in range(2 ** len(differences)):
        flipped = [-value if number >> place & 1 else value for place, value in enumerate(differences)]
        extreme += abs(math.fsum(flipped)) > observed - 1e-12
    return extreme / 2 ** len(differences)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 12])
def test_sign_flip_against_brute_force(count):
    rng = np.random.default_rng(count)
    for shift in (0.0, 0.5, 2.0):
        differences = rng.normal(shift, 1.0, count).tolist()
        assert sign_flip(differences) == brute_force(differences)


def test_sign_flip_against_scipy():
    differences = np.random.default_rng(0).normal(0.4, 1.0, 10)
    other = permutation_test((differences, np.zeros(10)), lambda a, b: np.mean(a - b), permutation_type="samples")
    assert sign_flip(differences.tolist()) == pytest.approx(other.pvalue)


def test_equal_sums_are_ties_whatever_the_rounding():
    # 0.1 + 0.2 - 0.3 is not exactly zero: of eight sign vectors two have the observed sum 0.6, all differ in rounding.
    assert sign_flip([0.1, 0.2, 0.3]) == 0.25
    assert sign_flip([0.1, 0.2, -0.3]) == 1.0
    assert sign_flip([0.0, 0.0, 0.0]) == 1.0


def test_beyond_twelve_pairs_the_test_is_random_but_keyed():
    differences = np.random.default_rng(5).normal(0.5, 1.0, 13).tolist()
    exact = brute_force(differences)
    error = math.sqrt(exact * (1 - exact) / 20_000)
    assert 0.01 < exact < 0.5
    assert abs(sign_flip(differences) - exact) < 4 * error
    assert sign_flip(differences, seed=1) == sign_flip(differences, seed=1)
    assert len({sign_flip(differences, seed=seed) for seed in range(4)}) > 1


def test_a_random_p_value_is_never_zero():
    found = compare_paired([1.0 + 0.01 * place for place in range(30)], [0.0] * 30)
    assert found.p_value == found.smallest_p == 1 / 20_001


def test_the_test_holds_its_level():
    rng = np.random.default_rng(1)
    rejected = sum(sign_flip(rng.normal(0.0, 1.0, 8).tolist()) <= 0.05 for _ in range(1000))
    assert 0.025 <= rejected / 1000 <= 0.07


def test_comparison():
    a, b = [0.70, 0.72, 0.69, 0.74, 0.71], [0.60, 0.63, 0.61, 0.62, 0.60]
    found = compare_paired(a, b)
    differences = [first - second for first, second in zip(a, b, strict=True)]
    assert found.mean == pytest.approx(0.10)
    assert found.interval == interval(differences)
    assert found.n == 5
    # All five have the same sign, and five coins of one side are all that five seeds can show.
    assert found.p_value == found.smallest_p == 2 / 32
    assert ttest_1samp(differences, 0.0).pvalue < 0.001


def test_one_seed_shows_nothing():
    found = compare_paired([0.9], [0.1])
    assert found.mean == pytest.approx(0.8)
    assert (found.interval, found.detectable, found.p_value, found.smallest_p) == (None, None, 1.0, 1.0)


def test_pairs_must_match():
    with pytest.raises(ValueError, match="shorter"):
        compare_paired([0.5, 0.6], [0.5])


@pytest.mark.parametrize("count", [2, 3, 5, 10])
def test_the_detectable_difference_is_found_four_times_in_five(count):
    # The t test on fresh differences with this mean and with the standard deviation that the pairs showed.
    rng = np.random.default_rng(count)
    pairs = rng.normal(0.0, 1.0, count)
    shift = detectable(pairs.tolist())
    fresh = rng.normal(shift, pairs.std(ddof=1), (20_000, count))
    found = ttest_1samp(fresh, 0.0, axis=1).pvalue < 0.05
    assert np.mean(found) == pytest.approx(0.8, abs=0.012)


def test_detectable_against_the_tables():
    # Cohen's tables for the one-sample t test: d = 0.996 for n = 10, 0.530 for n = 30 at 80 % and 5 % two-sided.
    for count, effect in ((10, 0.9960), (30, 0.5297)):
        values = np.random.default_rng(0).normal(size=count)
        assert detectable(values.tolist()) / values.std(ddof=1) == pytest.approx(effect, abs=5e-4)


def test_holm_on_a_worked_example():
    # Sorted: 0.005 x 4, 0.01 x 3, 0.03 x 2, then 0.04 x 1 lifted to the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_holm_stops_at_one_and_leaves_a_single_comparison_alone():
    assert holm([0.7, 0.6]) == [1.0, 1.0]
    assert holm([0.04]) == [0.04]
    assert holm([]) == []


def test_holm_rejects_what_the_step_down_procedure_rejects():
    rng = np.random.default_rng(2)
    for _ in range(200):
        p_values = (rng.uniform(size=6) ** 3).tolist()
        rejected = set()
        for rank, place in enumerate(np.argsort(p_values)):
            if p_values[place] > 0.05 / (6 - rank):
                break
            rejected.add(int(place))
        assert {place for place, adjusted in enumerate(holm(p_values)) if adjusted <= 0.05} == rejected
