import math

import numpy as np
import pytest
from scipy.optimize import curve_fit

from hpcule.study.critical_batch import fit_critical_batch, steps_to_target

GRID = (16, 32, 64, 128, 256, 512, 1024)
CRITICAL, MINIMUM = 150.0, 200.0


def replicates(seed, critical=CRITICAL, noise=0.08, seeds=5, grid=GRID):
    """Steps of each seed on the curve, with log-normal scatter."""
    rng = np.random.default_rng(seed)
    curve = steps_to_target(grid, MINIMUM, critical)
    return {
        batch: (value * np.exp(noise * rng.standard_normal(seeds))).tolist()
        for batch, value in zip(grid, curve, strict=True)
    }


def test_the_curve_is_the_hyperbola_of_steps_and_samples():
    for batch in GRID:
        steps = float(steps_to_target(batch, MINIMUM, CRITICAL))
        assert (steps / MINIMUM - 1) * (batch * steps / (CRITICAL * MINIMUM) - 1) == pytest.approx(1.0)


def test_fit_recovers_the_curve():
    found = fit_critical_batch(replicates(0))
    assert found.identifiable
    assert found.reason == ""
    assert found.batches == GRID
    assert found.censored == {}
    assert found.interval[0] < CRITICAL < found.interval[1] < 1.3 * found.interval[0]
    assert found.steps_interval[0] < MINIMUM < found.steps_interval[1]
    assert found.critical_batch == pytest.approx(CRITICAL, rel=0.1)
    assert found.minimum_steps == pytest.approx(MINIMUM, rel=0.1)


def test_fit_agrees_with_a_fit_of_both_numbers_at_once():
    data = replicates(1, noise=0.2)
    points = [(batch, math.log(value)) for batch, values in data.items() for value in values]
    batches, logs = (np.array(column) for column in zip(*points, strict=True))
    (minimum, critical), _ = curve_fit(lambda b, low, crit: low + np.log(1 + np.exp(crit) / b), batches, logs, (5, 4))
    found = fit_critical_batch(data, resamples=20)
    assert found.minimum_steps == pytest.approx(math.exp(minimum), rel=1e-3)
    assert found.critical_batch == pytest.approx(math.exp(critical), rel=1e-3)


def test_batch_sizes_weigh_as_many_seeds_as_they_have():
    # One of the seven moved off the curve, and listed with three times the seeds.
    data = replicates(2, noise=0.3)
    data[1024] = [1.2 * value for value in data[1024]]
    more = {batch: values * (3 if batch == 1024 else 1) for batch, values in data.items()}
    points = [(batch, math.log(value)) for batch, values in more.items() for value in values]
    batches, logs = (np.array(column) for column in zip(*points, strict=True))
    (_, critical), _ = curve_fit(lambda b, low, crit: low + np.log(1 + np.exp(crit) / b), batches, logs, (5, 4))
    found = fit_critical_batch(more, resamples=20).critical_batch
    assert found == pytest.approx(math.exp(critical), rel=1e-3)
    assert found != pytest.approx(fit_critical_batch(data, resamples=20).critical_batch, rel=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [2, 5])
def test_the_interval_covers_the_truth_about_as_often_as_it_says(seeds):
    found = [fit_critical_batch(replicates(100 + run, seeds=seeds), resamples=80) for run in range(60)]
    intervals = [one.interval for one in found if one.interval is not None]
    assert len(intervals) >= 56
    assert 0.85 <= np.mean([low <= CRITICAL <= high for low, high in intervals]) <= 1.0


@pytest.mark.parametrize("critical", [3000.0, 20_000.0, 1e6])
def test_a_grid_in_the_regime_of_perfect_scaling_gives_a_lower_bound(critical):
    for seed in range(5):
        found = fit_critical_batch(replicates(seed, critical=critical), resamples=200)
        assert not found.identifiable
        assert found.critical_batch is found.minimum_steps is found.steps_interval is None
        assert "all batch sizes are below B_crit" in found.reason
        assert f"above {found.interval[0]:.4g}" in found.reason
        assert GRID[-1] / 2 < found.interval[0] < critical
        assert found.interval[1] > critical or critical == 3000.0
    assert critical == 3000.0 or found.interval[1] == math.inf


@pytest.mark.parametrize("critical", [6.0, 1.0, 0.01])
def test_a_saturated_grid_gives_an_upper_bound(critical):
    for seed in range(5):
        found = fit_critical_batch(replicates(seed, critical=critical), resamples=200)
        assert not found.identifiable
        assert found.critical_batch is None
        assert "all batch sizes are above B_crit" in found.reason
        assert f"below {found.interval[1]:.4g}" in found.reason
        assert critical < found.interval[1] < 2 * GRID[0]
    assert critical == 6.0 or found.interval[0] == 0.0


def test_a_narrow_grid_with_scatter_says_nothing():
    found = fit_critical_batch(replicates(0, noise=0.5, seeds=3, grid=(100, 140, 200)), resamples=200)
    assert not found.identifiable
    assert found.interval == (0.0, math.inf)


def test_two_batch_sizes_are_too_few():
    found = fit_critical_batch(replicates(0, grid=(32, 1024)))
    assert (found.identifiable, found.interval) == (False, None)
    assert found.reason == "2 batch sizes reached the target with all seeds; it takes 3"
    assert fit_critical_batch({}).reason.startswith("0 batch sizes")


def test_censored_batch_sizes_are_left_out_and_reported():
    data = replicates(3)
    whole = fit_critical_batch(
        {batch: values for batch, values in data.items() if batch not in (16, 1024)}, resamples=50
    )
    data[1024][1:3] = [None, None]
    data[16] = [None] * 5
    found = fit_critical_batch(data, resamples=50)
    assert found.censored == {16: 5, 1024: 2}
    assert found.batches == (32, 64, 128, 256, 512)
    assert (found.critical_batch, found.interval) == (whole.critical_batch, whole.interval)
    left = {batch: values if batch in (64, 128) else [None] for batch, values in data.items()}
    assert fit_critical_batch(left).reason.startswith("2 batch sizes")


def test_one_seed_allows_no_interval():
    data = replicates(4)
    data[64] = data[64][:1]
    found = fit_critical_batch(data)
    assert (found.identifiable, found.interval, found.critical_batch) == (False, None, None)
    assert found.reason == "one seed allows no interval: batch size 64"


def test_seeds_without_any_scatter_allow_no_interval():
    found = fit_critical_batch({batch: [float(values[0])] * 3 for batch, values in replicates(5).items()})
    assert (found.identifiable, found.interval) == (False, None)
    assert "the same steps" in found.reason


def test_steps_that_rise_with_the_batch_are_not_called_saturated():
    # One learning rate for all batch sizes does this.
    data = replicates(6)
    data[1024] = [2 * value for value in data[1024]]
    found = fit_critical_batch(data)
    assert (found.identifiable, found.interval) == (False, None)
    assert found.reason == "the curve does not describe these steps; batch size 1024 is farthest from it"


def test_order_of_the_grid_is_no_matter_and_the_seed_keys_the_interval():
    data = replicates(7)
    turned = dict(reversed(data.items()))
    assert fit_critical_batch(data, seed=1, resamples=50) == fit_critical_batch(turned, seed=1, resamples=50)
    assert (
        fit_critical_batch(data, seed=1, resamples=50).interval
        != fit_critical_batch(data, seed=2, resamples=50).interval
    )
