from itertools import permutations

import numpy as np
import pytest
import torch

from hpcule.config.errors import HpculeError
from hpcule.world.exact import LARGEST, Sum

SHAPES = [torch.Size([5, 7]), torch.Size([11])]
CPU = torch.device("cpu")


def ghosts(count=6):
    """Tensors whose values span 20 orders of two, so that float32 rounds at almost every addition."""
    rng = np.random.default_rng(0)
    return [
        [torch.from_numpy((rng.normal(size=s) * 2.0 ** rng.integers(-14, 6, s)).astype(np.float32)) for s in SHAPES]
        for _ in range(count)
    ]


def add_up(world, order, exact=True):
    total = Sum(SHAPES, CPU, exact=exact)
    addends = ghosts()
    for ghost in order:
        total.add(addends[ghost])
    return torch.cat([part.flatten() for part in total.total(world)]).numpy()


def add_up_dealt(world, dealings, exact):
    """One sum for each way to deal the ghosts out: dealing[i] is the rank of the i-th ghost."""
    return [add_up(world, [g for g, rank in enumerate(dealing) if rank == world.rank], exact) for dealing in dealings]


def test_the_order_is_no_part_of_an_exact_sum(alone):
    orders = list(permutations(range(6)))[::37]
    sums = {add_up(alone, order).tobytes() for order in orders}
    assert len(sums) == 1
    assert len({add_up(alone, order, exact=False).tobytes() for order in orders}) > 1, "these values show no rounding"


def test_two_ranks_are_no_part_of_an_exact_sum(pool, alone):
    expected = add_up(alone, range(6)).tobytes()
    dealings = [[0, 1, 0, 1, 0, 1], [1, 1, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0]]
    for answer in pool.run(add_up_dealt, dealings, True):
        assert [total.tobytes() for total in answer] == [expected] * len(dealings)


def test_three_ranks_are_no_part_of_an_exact_sum(trio, alone):
    expected = add_up(alone, range(6)).tobytes()
    dealings = [[0, 1, 2, 0, 1, 2], [2, 2, 1, 1, 0, 0], [2, 2, 2, 2, 2, 2]]
    for answer in trio.run(add_up_dealt, dealings, True):
        assert [total.tobytes() for total in answer] == [expected] * len(dealings)


def test_a_floating_sum_over_ranks_is_close(pool, alone):
    expected = add_up(alone, range(6))
    for answer in pool.run(add_up_dealt, [[0, 1, 0, 1, 0, 1]], False):
        np.testing.assert_allclose(answer[0], expected, rtol=1e-5, atol=1e-5)


def test_an_addend_is_off_by_less_than_two_to_the_minus_forty(alone):
    reference = np.zeros(5 * 7 + 11)
    for ghost in ghosts():
        reference += torch.cat([part.flatten() for part in ghost]).double().numpy()
    error = np.abs(add_up(alone, range(6)).astype(np.float64) - reference)
    # The total is given in float32: half a unit in its last place comes on top.
    assert (error <= 6 * 2.0**-41 + np.abs(reference) * 2.0**-24).all()


def test_addends_below_the_fixed_points_unit_are_rounded_to_the_nearest(alone):
    rng = np.random.default_rng(0)
    addends = rng.uniform(0, 2.0**-24, (6, 1000)).astype(np.float32)
    total = Sum([torch.Size([1000])], CPU, exact=True)
    for addend in addends:
        total.add([torch.from_numpy(addend)])
    error = total.total(alone)[0].double().numpy() - addends.sum(0, dtype=np.float64)
    assert np.abs(error).max() <= 6 * 2.0**-41
    assert abs(error.mean()) < 0.1 * 2.0**-41, "no bias"


def test_small_and_large_addends_are_kept(alone):
    total = Sum([torch.Size([3])], CPU, exact=True)
    for value in (LARGEST - 1, -(LARGEST - 1)):
        total.add([torch.tensor([value, 1.0, 2.0**-40])])
    assert total.total(alone)[0].tolist() == [0.0, 2.0, 2.0**-39]


def test_sixteen_of_the_largest_addends_fit(alone):
    total = Sum([torch.Size([1])], CPU, exact=True)
    for _ in range(16):
        total.add([torch.tensor([LARGEST - 1])])
    assert total.total(alone)[0].item() == 16 * (LARGEST - 1)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), LARGEST, -LARGEST])
def test_what_the_fixed_point_cannot_hold_is_refused(alone, value):
    total = Sum([torch.Size([4])], CPU, exact=True)
    total.add([torch.tensor([0.0, 1.0, value, 2.0])])
    total.add([torch.ones(4)])
    with pytest.raises(HpculeError, match="not finite or above 2\\^18"):
        total.total(alone)


def test_adding_to_a_sum_compares_nothing_on_the_host(monkeypatch):
    """A comparison would wait for the device, ghost by ghost."""
    total = Sum(SHAPES, CPU, exact=True)
    for name in ("__bool__", "item", "tolist", "cpu", "numpy"):
        monkeypatch.setattr(torch.Tensor, name, None)
    total.add(ghosts(1)[0])


@pytest.mark.gpu
def test_an_exact_sum_has_the_same_bits_on_a_gpu(alone):
    total = Sum(SHAPES, torch.device("cuda"), exact=True)
    for ghost in ghosts():
        total.add([part.cuda() for part in ghost])
    found = torch.cat([part.flatten() for part in total.total(alone)]).cpu().numpy()
    assert found.tobytes() == add_up(alone, range(6)).tobytes()


@pytest.mark.parametrize("exact", [True, False])
def test_a_sum_starts_again_from_zero(alone, exact):
    total = Sum([torch.Size([2])], CPU, exact=exact)
    total.add([torch.tensor([1.0, 2.0])])
    (first,) = total.total(alone)
    total.add([torch.tensor([10.0, 20.0])])
    assert total.total(alone)[0].tolist() == [10.0, 20.0]
    assert first.tolist() == [1.0, 2.0], "an earlier total is not changed later"
    assert total.total(alone)[0].tolist() == [0.0, 0.0]
