import math

import numpy as np
import pytest

from hpcule.study.noise_scale import FEWEST_STEPS, NoiseSums, percentiles
from hpcule.world.gradient_norms import GradientNorms

GRADIENT = np.array([1.0, -2.0, 0.5, 0.0])
SPREAD = np.array([3.0, 1.0, 2.0, 4.0])
TRACE, SQUARED = float((SPREAD**2).sum()), float((GRADIENT**2).sum())


def samples(rng, count, gradient=GRADIENT):
    """Gradients of single samples with a known mean and a known diagonal covariance."""
    return gradient + SPREAD * rng.standard_normal((count, len(gradient)))


def add_groups(sums, gradients, sizes):
    """One step from gradients of single samples, cut into groups."""
    assert sum(sizes) == len(gradients)
    parts = np.split(gradients, np.cumsum(sizes)[:-1])
    squares = [float((part.mean(0) ** 2).sum()) for part in parts]
    sums.add(GradientNorms.of(sizes, squares, float((gradients.mean(0) ** 2).sum())))


def by_step(sizes, steps=2000, seed=0):
    """Mean and standard error of each of the two estimates over independent steps."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(steps):
        sums = NoiseSums()
        add_groups(sums, samples(rng, sum(sizes)), sizes)
        one = sums.estimate()
        found.append((one.noise_trace, one.gradient_squared))
    return np.mean(found, axis=0), np.std(found, axis=0, ddof=1) / math.sqrt(steps)


@pytest.mark.parametrize("sizes", [[8] * 4, [16] * 7 + [5], [1, 40], [1] * 12])
def test_estimates_are_unbiased(sizes):
    mean, error = by_step(sizes)
    assert abs(mean[0] - TRACE) < 3 * error[0]
    assert abs(mean[1] - SQUARED) < 3 * error[1]
    assert error[0] < 0.06 * TRACE


def test_groups_of_one_give_the_plain_sample_variance():
    gradients = samples(np.random.default_rng(1), 20)
    sums = NoiseSums()
    add_groups(sums, gradients, [1] * 20)
    trace = gradients.var(axis=0, ddof=1).sum()
    assert sums.estimate().noise_trace == pytest.approx(trace, rel=1e-12)
    assert sums.estimate().gradient_squared == pytest.approx((gradients.mean(0) ** 2).sum() - trace / 20, rel=1e-12)


def test_equal_groups_give_the_form_with_two_batch_sizes():
    # Appendix A.1 of the paper: b_small against b_big.
    gradients = samples(np.random.default_rng(2), 24).reshape(4, 6, -1)
    small = (gradients.mean(1) ** 2).sum(1).mean()
    big = (gradients.mean((0, 1)) ** 2).sum()
    sums = NoiseSums()
    add_groups(sums, gradients.reshape(24, -1), [6] * 4)
    assert sums.estimate().noise_trace == pytest.approx((small - big) / (1 / 6 - 1 / 24), rel=1e-12)
    assert sums.estimate().gradient_squared == pytest.approx((24 * big - 6 * small) / (24 - 6), rel=1e-12)


def run(steps, seed, gradient=GRADIENT, sizes=(16, 16, 16, 5)):
    rng, sums = np.random.default_rng(seed), NoiseSums()
    for _ in range(steps):
        add_groups(sums, samples(rng, sum(sizes), gradient), list(sizes))
    return sums


def test_noise_scale_of_a_run():
    found = run(400, 0).estimate()
    assert found.identifiable
    assert found.reason == ""
    assert found.steps == 400
    assert found.noise_scale == pytest.approx(found.noise_trace / found.gradient_squared)
    assert found.interval[0] < TRACE / SQUARED < found.interval[1]
    assert found.interval[1] < 1.3 * found.interval[0]


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    covered = 0
    for seed in range(300):
        low, high = run(40, 1000 + seed).estimate(resamples=200).interval
        covered += low <= TRACE / SQUARED <= high
    assert 0.88 <= covered / 300 <= 0.99


def test_no_gradient_is_not_identifiable():
    refused, bounded = 0, 0
    for seed in range(40):
        found = run(60, seed, gradient=np.zeros(4)).estimate(resamples=400)
        refused += not found.identifiable
        bounded += found.interval[0] > 3 * TRACE / SQUARED
        assert (found.noise_scale is None) == (not found.identifiable) == ("distinguished from zero" in found.reason)
    assert refused >= 36
    assert bounded >= 36


def test_a_negative_estimate_is_not_clipped():
    estimates = [run(60, seed, gradient=np.zeros(4)).estimate(resamples=20).gradient_squared for seed in range(40)]
    assert 8 < sum(estimate < 0 for estimate in estimates) < 32


def test_few_steps_have_no_interval():
    found = run(FEWEST_STEPS - 1, 0).estimate()
    assert (found.interval, found.noise_scale, found.identifiable) == (None, None, False)
    assert "too few" in found.reason
    assert found.noise_trace > 0
    assert run(FEWEST_STEPS, 0).estimate().interval is not None


def test_steps_that_tell_nothing_are_counted():
    sums = NoiseSums()
    sums.add(GradientNorms.of([8], [1.0], 1.0))
    sums.add(GradientNorms.of([8, 8], [math.inf, 1.0], 1.0))
    sums.add(GradientNorms.of([8, 8], [1.0, 1.0], math.nan))
    found = sums.estimate()
    assert (found.steps, found.skipped, found.noise_trace, found.identifiable) == (0, 3, None, False)
    sums.add(GradientNorms.of([8, 8], [2.0, 2.0], 1.0))
    assert (sums.estimate().steps, sums.estimate().skipped) == (1, 3)


def test_a_sum_in_place_of_the_mean_is_noticed():
    with pytest.raises(ValueError, match="not that of the groups' mean"):
        NoiseSums().add(GradientNorms.of([8, 8], [1.0, 1.0], 4.0))


def test_lengths_must_match():
    with pytest.raises(ValueError, match="shorter"):
        NoiseSums().add(GradientNorms.of([8, 8], [1.0], 1.0))


@pytest.mark.parametrize("steps", [31, 33, 100, 777, 5000])
def test_blocks_keep_every_step_and_stay_few(steps):
    rng, sums, traces = np.random.default_rng(3), NoiseSums(), []
    for _ in range(steps):
        first, second = rng.uniform(1, 2, 2)
        sums.add(GradientNorms.of([4, 4], [first, second], 0.5))
        traces.append(4 * (first + second) - 8 * 0.5)
    assert sum(block[0] for block in sums.blocks) == steps
    assert {block[0] for block in sums.blocks[:-1]} == {sums.length}
    assert 1 <= sums.blocks[-1][0] <= sums.length
    assert min(16, steps ** (2 / 3) / 2) <= len(sums.blocks) <= max(32, steps ** (2 / 3))
    assert sums.estimate(resamples=20).noise_trace == pytest.approx(np.mean(traces), rel=1e-9)


def test_slow_waves_widen_the_interval():
    # The same steps in two orders: what neighbours share counts only once.
    trace = 10 + 5 * np.sin(np.arange(1000) * 2 * np.pi / 250)
    width = []
    for values in (trace, np.random.default_rng(0).permutation(trace)):
        sums = NoiseSums()
        for value in values:
            sums.add(GradientNorms.of([1, 1], [1 + value, 1 + value], 1 + value / 2))
        low, high = sums.estimate().interval
        width.append(high - low)
    assert width[0] > 2 * width[1]


def test_the_seed_keys_the_interval():
    sums = run(40, 0)
    assert sums.estimate(seed=1) == sums.estimate(seed=1)
    assert sums.estimate(seed=1).interval != sums.estimate(seed=2).interval


def test_percentiles_with_infinite_draws():
    draws = np.concatenate([np.arange(990.0), np.full(10, np.inf)])
    assert percentiles(np.random.default_rng(0).permutation(draws)) == (24.0, 975.0)
    draws[960:] = np.inf
    assert percentiles(draws) == (24.0, math.inf)
