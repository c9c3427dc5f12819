import numpy as np
import pytest

from hpcule.data.partition import Partition
from hpcule.data.schedule import Schedule

EVEN = [Partition(1000, 7).ids(shard) for shard in range(7)]
UNEVEN = [np.arange(0, 100), np.arange(100, 100), np.arange(200, 203), np.arange(300, 377, 2)]


def schedule(members, ghost=32, batch=128, seed=0, purpose="test"):
    return Schedule(members, ghost, batch, seed, purpose)


def ids_of(batches):
    return [ghost.ids.tolist() for batch in batches for ghost in batch]


@pytest.mark.parametrize("members", [EVEN, UNEVEN], ids=["even", "uneven"])
@pytest.mark.parametrize(("ghost", "batch"), [(32, 128), (1, 1), (7, 50), (1000, 10), (5, 10_000)])
@pytest.mark.parametrize("seed", [None, 3])
def test_each_id_exactly_once_an_epoch(members, ghost, batch, seed):
    plan = schedule(members, ghost, batch, seed)
    for epoch in (0, 1, 5):
        batches = plan.epoch(epoch)
        assert sorted(i for part in ids_of(batches) for i in part) == sorted(np.concatenate(members).tolist())
        assert len(batches) == plan.steps


def sizes_of(batches):
    return [sum(len(ghost.ids) for ghost in batch) for batch in batches]


def test_what_is_asked_for_is_what_is_taken():
    """Of any samples in any shards: every step but an epoch's last, each id once, ghosts of one shard, at most g."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        n = int(rng.integers(1, 3000))
        shards, ghost, batch = (int(rng.integers(1, most + 1)) for most in (min(n, 80), 200, n))
        ids = np.arange(n)[rng.random(n) < rng.choice([0.1, 1.0])] if n > 50 else np.arange(n)
        members = [ids[np.isin(ids, Partition(n, shards).ids(shard))] for shard in range(shards)]
        plan = schedule(members, ghost, batch, int(rng.integers(100)))
        for epoch in (0, 1):
            batches = plan.epoch(epoch)
            sizes = sizes_of(batches)
            assert set(sizes[:-1]) <= {batch}
            assert sizes[-1] == len(ids) - batch * (len(sizes) - 1) <= batch
            assert sorted(i for part in ids_of(batches) for i in part) == ids.tolist()
            for part in (part for whole in batches for part in whole):
                assert np.isin(part.ids, members[part.shard]).all()
                assert 1 <= len(part.ids) <= ghost


@pytest.mark.parametrize("n", [3680, 4708, 546])
@pytest.mark.parametrize("ghost", [32, 128])
def test_the_sizes_of_real_collections_hold_no_batch_down(n, ghost):
    """As many shards as by default: Oxford-IIIT Pets, PneumoniaMNIST and BreastMNIST."""
    shards = max(1, min(n // 32, 64))
    members = [Partition(n, shards).ids(shard) for shard in range(shards)]
    for batch in (32, 64, 100, 128, 256, 512):
        assert set(sizes_of(schedule(members, ghost, batch).epoch(0))[:-1]) == {batch}


@pytest.mark.parametrize(("n", "ghost", "sizes"), [(100, 32, [25] * 4), (47, 32, [24, 23]), (65, 32, [22, 22, 21])])
def test_ghosts_are_nearly_equal_parts_of_one_shard(n, ghost, sizes):
    batches = schedule([np.arange(n)], ghost).epoch(0)
    assert [len(part) for part in ids_of(batches)] == sizes


def test_the_rest_of_a_ghost_begins_the_next_batch():
    batches = schedule([np.arange(10), np.arange(10, 20)], 5, 7, None).epoch(0)
    assert [[ghost.ids.tolist() for ghost in batch] for batch in batches] == [
        [[0, 1, 2, 3, 4], [10, 11]],
        [[12, 13, 14], [5, 6, 7, 8]],
        [[9], [15, 16, 17, 18, 19]],
    ]
    assert [[ghost.shard for ghost in batch] for batch in batches] == [[0, 1], [1, 0], [0, 1]]


def test_a_ghost_holds_ids_of_its_shard_alone():
    for batch in schedule(UNEVEN, 8, 32).epoch(2):
        for ghost in batch:
            assert np.isin(ghost.ids, UNEVEN[ghost.shard]).all()
            assert len(ghost.ids)


@pytest.mark.parametrize("size", [2, 3, 7])
def test_batches_are_spread_evenly_over_the_ranks(size):
    """Ghosts come round-robin over the shards, which are dealt like cards: no rank has more than its share plus two."""
    members = [Partition(6400, 64).ids(shard) for shard in range(64)]
    for batch in schedule(members, 32, 512).epoch(0):
        counts = np.bincount([ghost.shard % size for ghost in batch], minlength=size)
        assert counts.max() <= len(batch) / size + 2


def test_shuffling_depends_on_seed_purpose_and_epoch():
    base = ids_of(schedule(EVEN).epoch(0))
    assert ids_of(schedule(EVEN).epoch(0)) == base
    others = [schedule(EVEN).epoch(1), schedule(EVEN, seed=1).epoch(0), schedule(EVEN, purpose="other").epoch(0)]
    for other in others:
        assert ids_of(other) != base


def test_a_shards_order_does_not_depend_on_other_shards():
    alone = schedule([EVEN[0]], 32, 32).epoch(4)
    among = [ghost.ids for batch in schedule(EVEN, 32, 32).epoch(4) for ghost in batch if ghost.shard == 0]
    assert np.array_equal(np.concatenate(among), np.concatenate([ghost.ids for batch in alone for ghost in batch]))


def test_without_a_seed_ids_keep_their_order():
    batches = schedule([np.arange(6), np.arange(6, 12)], 3, 6, None).epoch(3)
    assert ids_of(batches) == [[0, 1, 2], [6, 7, 8], [3, 4, 5], [9, 10, 11]]
    assert [len(batch) for batch in batches] == [2, 2]


def test_shards_take_turns_to_begin():
    starts = {schedule(EVEN).epoch(epoch)[0][0].shard for epoch in range(40)}
    assert len(starts) >= 5


def test_steps_walk_through_the_epochs():
    plan = schedule(EVEN)
    walked = [plan.at(step) for step in range(2 * plan.steps)]
    again = schedule(EVEN)
    expected = again.epoch(0) + again.epoch(1)
    assert ids_of(walked) == ids_of(expected)
    assert ids_of([plan.at(3)]) == ids_of(again.epoch(0)[3:4]), "going back gives the same batch"
