from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
from scipy.stats import binom

from hpcule.measure.certificate import certified_bounds, fewest_draws, largest_shift, shifted_quantile, upper_rank

# n = 1000, alpha = 0.01: q, eta / sigma, shifted quantile, rank.
TABLE = [
    (0.5, 0.1, 0.5398, 577),
    (0.5, 0.5, 0.6915, 726),
    (0.5, 1.0, 0.8413, 869),
    (0.5, 2.0, 0.9772, 988),
    (0.7, 0.25, 0.7807, 812),
    (0.7, 0.5, 0.8472, 874),
    (0.7, 1.0, 0.9363, 955),
    (0.7, 2.0, 0.9942, 1000),
    (0.9, 0.5, 0.9626, 977),
    (0.9, 1.0, 0.9887, 997),
    (0.9, 1.3, 0.9951, 1000),
    (0.9, 2.0, 0.9995, None),
]
# Largest eta / sigma at alpha = 0.01.
LIMITS = {100: (1.695, 1.171, 0.414, 0.050), 1000: (2.605, 2.081, 1.323, 0.960), 10000: (3.314, 2.789, 2.032, 1.669)}


@pytest.mark.parametrize(("q", "shift", "shifted", "rank"), TABLE)
def test_known_ranks(q, shift, shifted, rank):
    assert shifted_quantile(q, shift) == pytest.approx(shifted, abs=5e-5)
    assert upper_rank(1000, shifted_quantile(q, shift), 0.01) == rank


@pytest.mark.parametrize("draws", LIMITS)
def test_known_limits(draws):
    for q, limit in zip((0.5, 0.7, 0.9, 0.95), LIMITS[draws], strict=True):
        assert largest_shift(draws, q, 0.01) == pytest.approx(limit, abs=5e-4)
        assert upper_rank(draws, shifted_quantile(q, largest_shift(draws, q, 0.01) - 1e-3), 0.01) is not None
        assert upper_rank(draws, shifted_quantile(q, largest_shift(draws, q, 0.01) + 1e-3), 0.01) is None


@pytest.mark.parametrize(("draws", "quantile", "alpha"), [(50, 0.3, 0.05), (200, 0.9, 0.01), (999, 0.5, 0.001)])
def test_the_rank_is_the_least_that_holds(draws, quantile, alpha):
    slow = next(
        k for k in range(math.ceil(draws * quantile), draws + 1) if binom.cdf(k - 1, draws, quantile) > 1 - alpha
    )
    assert upper_rank(draws, quantile, alpha) == slow


def test_so_many_draws_are_just_enough():
    for q, shift in ((0.9, 1.0), (0.7, 2.0), (0.5, 0.0)):
        needed = fewest_draws(q, shift, 0.01)
        assert upper_rank(needed, shifted_quantile(q, shift), 0.01) == needed
        assert upper_rank(needed - 1, shifted_quantile(q, shift), 0.01) is None


def test_the_bound_covers_the_quantile_as_often_as_it_says():
    """Accuracy uniform in [0, 1]: its q-quantile is q."""
    rng = np.random.default_rng(0)
    misses = 0
    for _ in range(2000):
        (bound,) = certified_bounds(rng.uniform(size=200).tolist(), 0.7, 1.0, [0.0], 0.05)
        misses += bound.accuracy < 0.7
    assert misses / 2000 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 2000)


def test_the_theorem_is_tight_for_a_linear_accuracy():
    """A(theta) = w . theta with |w| = 1: the worst move is along w, and attains the bound."""
    rng = np.random.default_rng(1)
    sigma, eta, q = 0.5, 0.3, 0.7
    w = rng.normal(size=20)
    w /= np.linalg.norm(w)
    centre = rng.normal(size=20)
    draws = (centre + sigma * rng.normal(size=(200_000, 20))) @ w
    moved = draws + eta
    exact = centre @ w + sigma * NormalDist().inv_cdf(shifted_quantile(q, eta / sigma))
    assert np.quantile(moved, q) == pytest.approx(exact, abs=0.01)
    (bound,) = certified_bounds(draws.tolist(), q, sigma, [eta], 0.01)
    assert exact <= bound.accuracy <= exact + 0.02


def test_alpha_is_shared_by_the_bounds():
    draws = np.linspace(0, 1, 1000).tolist()
    alone = certified_bounds(draws, 0.9, 0.25, [0.1], 0.01)[0]
    together = certified_bounds(draws, 0.9, 0.25, [0.05, 0.1, 0.2], 0.01)
    assert together[1].accuracy > alone.accuracy
    assert together[1].rank == upper_rank(1000, shifted_quantile(0.9, 0.4), 0.01 / 3)
    assert [bound.eta for bound in together] == [0.05, 0.1, 0.2]
    assert sorted(bound.accuracy for bound in together) == [bound.accuracy for bound in together]


def test_too_few_draws_certify_nothing():
    (bound,) = certified_bounds([0.5] * 100, 0.9, 0.25, [1.0], 0.01)
    assert bound.rank is None
    assert bound.accuracy is None
