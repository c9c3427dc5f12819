import numpy as np
import pytest
import torch
from toys import ToySource

from hpcule.data.partition import Partition
from hpcule.data.reader import Reader
from hpcule.data.schedule import Ghost
from hpcule.data.upload import Uploads

CUT = Partition(50, 4)


def test_on_a_cpu_nothing_is_copied():
    samples = torch.arange(4)
    assert Uploads(torch.device("cpu")).begin(samples).arrived() is samples


@pytest.mark.gpu
def test_a_copy_comes_before_what_is_computed_from_it_later():
    uploads = Uploads(torch.device("cuda"))
    for number in range(20):
        samples = torch.full((64, 3, 224, 224), number, dtype=torch.uint8)
        assert int(uploads.begin(samples).arrived().sum(dtype=torch.int64)) == number * samples.numel()


@pytest.mark.gpu
@pytest.mark.parametrize("limit", [0, 3000, 2**30], ids=["streaming", "some shards", "resident"])
def test_samples_are_on_the_device_as_integers_wherever_they_are_kept(limit):
    source = ToySource(50, (3, 6, 5), dtype=np.uint8)
    reader = Reader(source, CUT, limit, torch.device("cuda"))
    for shard in range(4):
        ids = CUT.ids(shard)
        for picked in (ids, ids[:5], ids[[3, 1, 1]]):
            reader.expect(Ghost(shard, picked))
            samples = reader.take(shard, picked)
            assert samples.device.type == "cuda"
            assert samples.dtype == torch.uint8
            np.testing.assert_array_equal(samples.cpu().numpy(), source.samples[picked])
    assert reader.shard(0).device.type == "cuda"
