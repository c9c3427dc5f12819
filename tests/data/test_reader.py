import numpy as np
import pytest
import torch
from toys import ToySource

from hpcule.data.partition import Partition
from hpcule.data.reader import Reader
from hpcule.data.schedule import Ghost

CUT = Partition(50, 4)
PICKS = [[0], [11], [1, 2, 3], [3, 1, 2], [0, 5], [11, 0], [4, 4, 4], list(range(12))]


def reader(limit, dtype=np.uint8):
    source = ToySource(50, (3, 6, 5), dtype=dtype)
    return Reader(source, CUT, limit), source


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("limit", [0, 3000, 2**30], ids=["streaming", "some shards", "resident"])
def test_samples_come_by_id_wherever_they_are_kept(limit, dtype):
    read, source = reader(limit, dtype)
    for shard in (0, 3, 1, 2, 0):
        first, count = CUT.range(shard)
        whole = read.shard(shard)
        assert whole.dtype == (torch.uint8 if dtype == np.uint8 else torch.int32)
        np.testing.assert_array_equal(whole.numpy(), source.samples[first : first + count])
        for pick in PICKS:
            ids = first + np.array(pick)
            np.testing.assert_array_equal(read.take(shard, ids).numpy(), source.samples[ids])


def test_a_resident_shard_is_read_once():
    read, source = reader(2**30)
    for _ in range(3):
        for shard in range(4):
            read.take(shard, CUT.ids(shard)[:5])
            read.shard(shard)
    assert source.reads == 4


def test_memory_stays_below_the_limit():
    shard_bytes = 12 * 90
    read, source = reader(2 * shard_bytes + 100)
    for _ in range(2):
        for shard in range(4):
            read.take(shard, CUT.ids(shard)[:5])
    # Shards 0 and 1 (12 samples each) fit and are read once; the other two are read each time.
    assert source.reads == 2 + 2 * 2


def test_a_streamed_batch_reads_its_own_samples_alone():
    read, source = reader(0)
    asked = []
    source.read = lambda ids: asked.append(ids.tolist()) or source.samples[ids]
    read.take(1, np.array([13, 20]))
    assert asked == [[13, 20]]


def test_an_expected_ghost_is_read_once_in_the_background():
    read, source = reader(0)
    ghost = Ghost(1, np.array([13, 20]))
    read.expect(ghost)
    np.testing.assert_array_equal(read.take(1, ghost.ids).numpy(), source.samples[[13, 20]])
    assert source.reads == 1
    np.testing.assert_array_equal(read.take(1, ghost.ids).numpy(), source.samples[[13, 20]])
    assert source.reads == 2


def test_what_is_in_memory_is_not_expected():
    read, source = reader(2**30)
    read.shard(1)
    read.expect(Ghost(1, np.array([13, 20])))
    read.take(1, np.array([13, 20]))
    assert source.reads == 1


def test_samples_that_have_to_be_decoded_are_decoded_once():
    read, source = reader(2 * 12 * 90 + 100)
    source.decodes = True
    for _ in range(3):
        for shard in range(4):
            ids = CUT.ids(shard)
            np.testing.assert_array_equal(read.take(shard, ids[2:7]).numpy(), source.samples[ids[2:7]])
            np.testing.assert_array_equal(read.shard(shard).numpy(), source.samples[ids])
    # Two shards in memory; of the two others five samples, and later the rest.
    assert source.reads == 2 + 2 * 2
