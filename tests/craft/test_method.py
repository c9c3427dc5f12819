import numpy as np
import pytest
import torch
from toys import ToySource, make_problem

from hpcule.config.errors import HpculeError
from hpcule.craft.method import finite, to_levels
from hpcule.data.schedule import Ghost


def slow(delta, clean, levels, epsilon):
    """Round, clip to the budget, clip to the grid, one value after the other."""
    result = np.empty(delta.shape, np.int64)
    for place, value in np.ndenumerate(delta):
        scaled = float(np.float32(value) * np.float32(levels))
        rounded = min(max(round(scaled), -int(epsilon)), int(epsilon))  # half to even, as torch
        published = min(max(int(clean[place]) + rounded, 0), levels)
        result[place] = published - int(clean[place])
    return result


@pytest.mark.parametrize(("dtype", "epsilon"), [(np.uint8, 8), (np.uint8, 7.9), (np.uint8, 127), (np.uint16, 100)])
def test_the_delta_of_what_is_published_equals_a_slow_reference(dtype, epsilon):
    rng = np.random.default_rng(0)
    levels = int(np.iinfo(dtype).max)
    clean = rng.integers(0, levels, (6, 3, 5, 4), endpoint=True)
    clean[0], clean[1] = 0, levels
    # Multiples of half a level, and beyond the budget: ties and clips.
    delta = rng.integers(-3 * int(epsilon), 3 * int(epsilon), clean.shape) / (2 * levels)
    delta = delta.astype(np.float32)
    before = delta.copy()
    found = to_levels(torch.from_numpy(delta), torch.from_numpy(clean.astype(np.int32)), levels, epsilon)
    np.testing.assert_array_equal(found, slow(delta, clean, levels, epsilon))
    np.testing.assert_array_equal(delta, before)
    assert np.abs(found).max() == int(epsilon)
    assert (found[0] >= 0).all()
    assert (found[1] <= 0).all()


def test_the_largest_values_of_a_16_bit_grid_are_exact():
    clean = torch.tensor([[65535, 65534, 1, 0]], dtype=torch.int32)
    delta = torch.tensor([[1.0, 1.0, -1.0, -1.0]]) * 3 / 65535
    assert to_levels(delta, clean, 65535, 100).tolist() == [[0, 1, -1, 0]]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_are_refused(value):
    """The sign of NaN is 0: nobody would see that the sample is not protected."""
    assert finite(torch.ones(2)).tolist() == [1, 1]
    with pytest.raises(HpculeError, match="has diverged"):
        finite(torch.tensor([1.0, value]))


def test_a_problem_tells_what_is_mine():
    source = ToySource(40)
    problem = make_problem(source, shards=5)
    assert problem.owned == [0, 1, 2, 3, 4]
    assert problem.rounds == 5
    ghosts = [Ghost(shard, problem.partition.ids(shard)) for shard in range(5)]
    assert problem.mine(ghosts) == ghosts
    np.testing.assert_array_equal(problem.labels, source.labels)


def test_samples_become_the_unit_interval():
    for dtype, levels in ((np.uint8, 255), (np.uint16, 65535)):
        problem = make_problem(ToySource(8, dtype=dtype))
        found = problem.unit_interval(torch.tensor([0, levels // 5, levels], dtype=torch.int32))
        torch.testing.assert_close(found, torch.tensor([0, 0.2, 1]), rtol=0, atol=1e-7)
