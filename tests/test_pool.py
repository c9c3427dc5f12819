import pytest

from hpcule.config.errors import DataError


def whoami(world, greeting):
    return f"{greeting} {world.rank} of {world.size}"


def fail_on_one(world, rank):
    if world.rank == rank:
        raise DataError("broken on purpose")


def test_a_function_runs_on_both_ranks(pool):
    assert pool.run(whoami, "rank") == ["rank 0 of 2", "rank 1 of 2"]


def test_an_error_comes_back_with_its_rank_and_traceback(pool):
    with pytest.raises(DataError, match="broken on purpose") as caught:
        pool.run(fail_on_one, 1)
    assert "on rank 1" in caught.value.__notes__[0]
    assert "fail_on_one" in caught.value.__notes__[0]
    assert pool.run(whoami, "still rank") == ["still rank 0 of 2", "still rank 1 of 2"]
