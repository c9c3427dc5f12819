import dataclasses
import math
import os
import signal
import socket
import time
from datetime import timedelta

import pytest
import torch
from pool import Pool

from hpcule.config.errors import DataError, HpculeError, PeerLostError, PeerTimeoutError, UsageError
from hpcule.config.run import WorldConfig
from hpcule.world import meeting
from hpcule.world.group import connected, tree
from hpcule.world.launcher import Place, free_port
from hpcule.world.node import share_memory


def collect(world):
    total = torch.tensor([1.0, 10.0]) * (world.rank + 1)
    same = world.add(total)
    copied = torch.full((2,), world.rank, dtype=torch.int64)
    world.broadcast(copied, source=world.size - 1)
    world.barrier()
    return {
        "add": same.tolist(),
        "in_place": same is total,
        "integers": world.add(torch.tensor(2**60 + world.rank)).item(),
        "maximum": world.maximum([world.rank, -world.rank, True]),
        "gather": world.gather({"rank": world.rank, "parts": ["x"] * world.rank}),
        "broadcast": copied.tolist(),
        "shared": world.share([world.rank, b"x"]),
        "led": world.lead(lambda: world.rank),
        "leads": world.leads,
        "threads": torch.get_num_threads(),
    }


def test_two_ranks_do_things_together(pool):
    first, second = pool.run(collect)
    assert first.pop("leads") is True
    assert second.pop("leads") is False
    assert first == second
    assert first == {
        "add": [3.0, 30.0],
        "in_place": True,
        "integers": 2**61 + 1,
        "maximum": [1.0, 0.0, 1.0],
        "gather": [{"rank": 0, "parts": []}, {"rank": 1, "parts": ["x"]}],
        "broadcast": [1, 1],
        "shared": [0, b"x"],
        "led": 0,
        "threads": 1,
    }


def collect_and_fail(world):
    collected = world.collect([world.rank] * world.rank)

    def fail():
        raise DataError("a bad file")

    try:
        world.lead(fail)
    except HpculeError as error:
        return collected, type(error).__name__, str(error)


def test_what_rank_0_collects_and_fails_at(trio):
    assert trio.run(collect_and_fail) == [
        ([[], [1], [2, 2]], "DataError", "a bad file"),
        (None, "PeerLostError", "rank 0 failed: a bad file"),
        (None, "PeerLostError", "rank 0 failed: a bad file"),
    ]


@pytest.mark.parametrize("size", [1, 2, 3, 6, 8, 13])
def test_a_tree_reaches_every_rank_once_over_few_peers(size):
    found = [tree(rank, size) for rank in range(size)]
    assert found[0][0] is None
    for rank, (_, children) in enumerate(found):
        assert all(found[child][0] == rank for child in children)
        # What is collected below a rank is its own value and then its children's, without a gap.
        assert children == [rank + 2**step for step in range(len(children))]
        assert len(children) <= math.ceil(math.log2(size))
    assert sorted(child for _, children in found for child in children) == list(range(1, size))


def test_one_process_is_the_same_code(alone):
    result = collect(alone)
    assert result["add"] == [1.0, 10.0]
    assert result["maximum"] == [0, 0, True]
    assert result["gather"] == [{"rank": 0, "parts": []}]
    assert result["broadcast"] == [0, 0]
    assert result["leads"]


def sum_up(world, sizes):
    """Of tensors of ascending numbers times a power of ten that tells the rank."""
    return [world.add(torch.arange(size) * 10**world.rank).tolist() for size in sizes]


def sum_up_by_sockets(world, sizes):
    return sum_up(dataclasses.replace(world, memory=None), sizes)


@pytest.mark.parametrize("way", [sum_up, sum_up_by_sockets])
def test_sums_of_any_size(pool, trio, way):
    sizes = [1, 1000, 200_000]  # 8 bytes to 1.6 MB
    for ranks, factor in ((pool, 11), (trio, 111)):
        for found in ranks.run(way, sizes):
            assert found == [[factor * number for number in range(size)] for size in sizes]


def split(world, groups):
    number, mine = world.split(groups)
    total = mine.add(torch.tensor(10**world.rank)).item()
    return number, mine.rank, mine.size, total, mine.gather(world.rank)


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        (1, [(0, 0, 3, 111, [0, 1, 2]), (0, 1, 3, 111, [0, 1, 2]), (0, 2, 3, 111, [0, 1, 2])]),
        (2, [(0, 0, 1, 1, [0]), (1, 0, 2, 110, [1, 2]), (1, 1, 2, 110, [1, 2])]),
        (3, [(0, 0, 1, 1, [0]), (1, 0, 1, 10, [1]), (2, 0, 1, 100, [2])]),
        (7, [(0, 0, 1, 1, [0]), (1, 0, 1, 10, [1]), (2, 0, 1, 100, [2])]),
    ],
)
def test_ranks_are_cut_into_groups_of_neighbours(trio, groups, expected):
    assert trio.run(split, groups) == expected


def in_groups(world, size):
    number, mine = world.in_groups_of(size)
    total = mine.add(torch.tensor(10**world.rank)).item()
    return number, mine.rank, mine.size, total, mine.gather(world.rank), mine.memory is not None


def test_groups_of_one_and_of_all_ranks_need_no_meeting(trio):
    assert trio.run(in_groups, 1) == [(rank, 0, 1, 10**rank, [rank], False) for rank in range(3)]
    together = world_has_memory(trio)
    assert trio.run(in_groups, 3) == [(0, rank, 3, 111, [0, 1, 2], together) for rank in range(3)]


def has_memory(world):
    return world.memory is not None


def world_has_memory(ranks):
    return ranks.run(has_memory)[0]


@pytest.mark.slow
def test_groups_are_of_neighbours_and_share_memory_as_all_do():
    with Pool(4) as ranks:
        together = world_has_memory(ranks)
        pairs = [(0, 0, 2, 11, [0, 1]), (0, 1, 2, 11, [0, 1]), (1, 0, 2, 1100, [2, 3]), (1, 1, 2, 1100, [2, 3])]
        assert ranks.run(in_groups, 2) == [(*pair, together) for pair in pairs]


def test_a_world_of_one_is_its_own_group(alone):
    assert alone.split(4) == (0, alone)


def lose_a_peer(world, path):
    if world.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    start = time.monotonic()
    try:
        world.add(torch.ones(3))
    finally:
        (path / f"rank-{world.rank}").write_text(str(time.monotonic() - start))


def test_a_killed_peer_is_noticed_at_once(trio, tmp_path):
    with pytest.raises(PeerLostError, match=r"lost another rank during a sum"):
        trio.run(lose_a_peer, tmp_path)
    # A rank that the pool ends while it writes leaves an empty file.
    waited = [float(text) for path in tmp_path.iterdir() if (text := path.read_text())]
    assert waited
    assert max(waited) < 10


def wait_for_a_peer(world, by_memory):
    """What rank 0 says of a rank that does not come within a time-out of a second."""
    brief = dataclasses.replace(world, timeout=timedelta(seconds=1))
    _, group = brief._grouped([range(world.size)])
    memory = share_memory(world.rank, world.size, group.timeout, group.gather) if by_memory else None
    if world.rank:
        time.sleep(3)
        return ""
    try:
        dataclasses.replace(group, memory=memory).add(torch.ones(3))
    except PeerTimeoutError as error:
        return str(error)
    return "no time-out"


@pytest.mark.parametrize("by_memory", [False, True])
def test_a_peer_that_hangs_is_a_time_out(pool, by_memory):
    first, _ = pool.run(wait_for_a_peer, by_memory)
    assert first.startswith(
        "timed out: another rank did not answer during a sum within 1 seconds (world.timeout_seconds)"
    )


def test_a_device_that_is_not_there_is_refused():
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with (
        pytest.raises(UsageError, match=r"world\.device=cuda, but torch sees no CUDA device"),
        connected(Place("single"), WorldConfig(device="cuda")),
    ):
        pass


@pytest.fixture
def torch_settings():
    """What `connected` changes in this process, put back."""
    threads, mode = torch.get_num_threads(), torch.get_deterministic_debug_mode()
    yield
    torch.set_num_threads(threads)
    torch.set_deterministic_debug_mode(mode)


@pytest.mark.usefixtures("torch_settings")
@pytest.mark.parametrize("deterministic", [True, False])
def test_threads(deterministic, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    cores = len(os.sched_getaffinity(0))
    with connected(Place("single"), WorldConfig(device="cpu"), deterministic=deterministic) as world:
        assert torch.get_num_threads() == (1 if deterministic else cores)
        assert torch.are_deterministic_algorithms_enabled() is deterministic
        assert world.size == 1
    with connected(Place("single"), WorldConfig(device="cpu", threads=2), deterministic=deterministic):
        assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("torch_settings")
def test_an_operator_that_is_not_reproducible_is_named(monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)

    def put_two_values_in_one_place():
        with connected(Place("single"), WorldConfig(device="cpu", threads=1), deterministic=True):
            assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
            torch.zeros(3).put_(torch.tensor([0, 0]), torch.ones(2))

    with pytest.raises(HpculeError, match=r"deterministic=true: put_ is not reproducible on cpu: leave it out, or set"):
        put_two_values_in_one_place()
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    with connected(Place("single"), WorldConfig(device="cpu", threads=1), deterministic=True):
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"


@pytest.mark.gpu
@pytest.mark.usefixtures("torch_settings")
def test_products_of_matrices_have_the_same_bits_each_time_on_a_gpu():
    with connected(Place("single"), WorldConfig(device="cuda", threads=1), deterministic=True) as world:
        generator = torch.Generator(world.device).manual_seed(0)
        first, second = torch.randn(2, 513, 513, generator=generator, device=world.device)
        assert len({(first @ second).cpu().numpy().tobytes() for _ in range(20)}) == 1


def test_ranks_that_do_not_come_are_an_error(monkeypatch):
    monkeypatch.setattr(meeting, "MEETING_SECONDS", 1)
    place = Place("mpi", rank=1, size=2, address="127.0.0.1", port=free_port())
    with (
        pytest.raises(PeerTimeoutError, match=r"timed out: .* the first meeting at 127.* within 1 seconds"),
        connected(place, WorldConfig(device="cpu", threads=1)),
    ):
        pass


def test_a_port_in_use_is_named():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        place = Place("mpi", rank=0, size=2, address="127.0.0.1", port=port)
        with (
            pytest.raises(PeerLostError, match=rf"cannot listen at 127\.0\.0\.1:{port}, where another program does"),
            connected(place, WorldConfig(device="cpu", threads=1)),
        ):
            pass
