import numpy as np
import pytest
import torch
from toys import ToySource, make_problem

from hpcule.config.errors import HpculeError
from hpcule.craft.method import finite
from hpcule.craft.parts.levels import to_levels, to_levels_of_length
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


@pytest.mark.parametrize("epsilon", [40.0, 7.3, 1.0])
def test_a_rounded_delta_is_shrunk_until_it_keeps_its_length(epsilon):
    rng = np.random.default_rng(0)
    clean = rng.integers(0, 256, (50, 3, 6, 6), dtype=np.uint8)
    clean[:25] = clean[:25] // 2 + 64
    delta = rng.normal(size=clean.shape)
    delta *= epsilon / np.sqrt((delta**2).sum(axis=(1, 2, 3), keepdims=True))
    before = delta.copy()
    found = to_levels_of_length(delta, clean, 255, epsilon)
    lengths = np.sqrt((found.astype(float) ** 2).sum(axis=(1, 2, 3)))
    assert lengths.max() <= epsilon
    assert (clean + found >= 0).all()
    assert (clean + found <= 255).all()
    np.testing.assert_array_equal(delta, before)
    # A delta that is short enough is only rounded.
    inside = ((clean + np.rint(delta) >= 0) & (clean + np.rint(delta) <= 255)).all(axis=(1, 2, 3))
    short = np.sqrt((np.rint(delta) ** 2).sum(axis=(1, 2, 3))) <= epsilon
    np.testing.assert_array_equal(found[inside & short], np.rint(delta)[inside & short])
    if epsilon == 40:
        assert (inside & short).any()
        assert lengths.mean() > 36


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
    np.testing.assert_array_equal(problem.classes(np.arange(len(source))), source.labels)


def test_samples_become_the_unit_interval():
    for dtype, levels in ((np.uint8, 255), (np.uint16, 65535)):
        problem = make_problem(ToySource(8, dtype=dtype))
        found = problem.unit_interval(torch.tensor([0, levels // 5, levels], dtype=torch.int32))
        torch.testing.assert_close(found, torch.tensor([0, 0.2, 1]), rtol=0, atol=1e-7)
