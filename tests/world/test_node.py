"""Sums through shared memory, by ranks that are real processes."""

import os
import signal
import time
from datetime import timedelta

import pytest
import torch

from hpcule.config.errors import PeerLostError
from hpcule.world.node import SLOT_BYTES, NodeSum, share_memory


def test_one_machine_shares_memory(pool):
    assert pool.run(shares) == [True, True]


def shares(world):
    return world.memory is not None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64, torch.bfloat16])
@pytest.mark.parametrize("shape", [(), (3,), (5, 7), (SLOT_BYTES // 2 + 1,)])
def test_any_type_and_shape(pool, dtype, shape):
    assert pool.run(sum_of_ranks, dtype, shape) == [[3.0], [3.0]]


def sum_of_ranks(world, dtype, shape):
    return world.add(torch.full(shape, world.rank + 1, dtype=dtype)).unique().tolist()


def test_a_view_is_summed_in_place(pool):
    for result in pool.run(sum_a_column):
        assert result == [[0.0, 3.0], [0.0, 3.0]]


def sum_a_column(world):
    matrix = torch.zeros(2, 2)
    matrix[:, 1] = world.rank + 1
    world.add(matrix[:, 1])
    return matrix.tolist()


@pytest.mark.slow
def test_thousands_of_sums_at_uneven_speed(trio):
    """No rank overwrites what another has still to read, however the scheduler mixes them."""
    first, second, third = trio.run(sum_unevenly, 3000)
    assert first == second == third == [3 * number + 3 for number in range(3000)]


def sum_unevenly(world, times):
    totals = []
    for number in range(times):
        if number % 7 == world.rank:
            time.sleep(0.0001)
        totals.append(int(world.add(torch.tensor(number + world.rank))))
    return totals


def test_all_ranks_have_the_same_bits(trio):
    first, second, third = trio.run(sum_random)
    assert first == second == third


def sum_random(world):
    generator = torch.Generator().manual_seed(world.rank)
    return world.add(torch.randn(1000, generator=generator) * 10**world.rank).tolist()


def test_a_rank_that_comes_late_is_waited_for(pool):
    assert pool.run(come_late) == [2, 2]


def come_late(world):
    if world.rank == 1:
        time.sleep(0.3)
    return int(world.add(torch.tensor(1)))


def test_a_killed_rank_is_noticed(pool):
    with pytest.raises(PeerLostError, match=r"lost another rank during a sum \(its process has ended\)"):
        pool.run(die_before_a_sum)


def die_before_a_sum(world):
    if world.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    world.add(torch.ones(1))


@pytest.mark.slow
def test_a_rank_that_never_comes_is_given_up(pool):
    first, second = pool.run(wait_in_vain)
    assert "timed out after 0.1 seconds" in first
    assert second == ""


def wait_in_vain(world):
    memory = share_memory(world.rank, world.size, timedelta(seconds=0.1), world.gather)
    message = ""
    if world.rank == 0:
        try:
            memory.add(torch.ones(1))
        except RuntimeError as error:
            message = str(error)
    world.barrier()
    return message


def test_ranks_of_two_machines_do_not_share():
    def gather(value):
        return [value, ("another machine", *value[1:])] if isinstance(value, tuple) else [value, value]

    assert share_memory(0, 2, timedelta(seconds=1), gather) is None


def test_memory_is_small():
    assert NodeSum.memory_bytes(64) < 2**25 * 1.01
