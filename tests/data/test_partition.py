import numpy as np
import pytest

from hpcule.config.errors import UsageError
from hpcule.data.partition import Partition, partition

CIFAR = 3 * 32 * 32
IMAGENET = 3 * 224 * 224


@pytest.mark.parametrize(
    ("n", "sample_bytes", "shards"),
    [
        (1, CIFAR, 1),
        (31, CIFAR, 1),
        (63, CIFAR, 1),
        (64, CIFAR, 2),
        (500, CIFAR, 15),
        (1797, 64, 56),
        (2047, CIFAR, 63),
        (2048, CIFAR, 64),
        (50_000, CIFAR, 64),
        (10**6, 784, 64),
        (114_130, IMAGENET, 64),  # just below 64 times 256 MiB
        (114_131, IMAGENET, 65),
        (1_281_167, IMAGENET, 719),
        (100, 3 * 4096 * 4096, 3),  # never fewer than 32 samples a shard
    ],
)
def test_the_default_number_of_shards(n, sample_bytes, shards):
    assert partition(n, sample_bytes, None, 1) == Partition(n, shards)


def test_a_wanted_number_is_taken():
    assert partition(100, CIFAR, 7, 7) == Partition(100, 7)
    assert partition(100, CIFAR, 100, 1) == Partition(100, 100)


@pytest.mark.parametrize(
    ("n", "wanted", "workers", "message"),
    [
        (100, 101, 1, "store.shards=101: valid are 1 to 100"),
        (100, -3, 1, "store.shards=-3: valid are 1 to 100"),
        (100, 0, 1, "store.shards=0: valid are 1 to 100"),
        (100, 4, 5, "5 workers for 4 shards: a worker owns whole shards; use at most 4 workers"),
        (64, None, 3, "3 workers for 2 shards"),
        (2, None, 5, "--set store.shards=2"),
    ],
)
def test_what_is_refused(n, wanted, workers, message):
    with pytest.raises(UsageError) as caught:
        partition(n, CIFAR, wanted, workers)
    assert message in str(caught.value)


@pytest.mark.parametrize(("n", "count"), [(1, 1), (7, 7), (97, 5), (100, 64), (1000, 3)])
def test_shards_are_contiguous_and_nearly_equal(n, count):
    cut = Partition(n, count)
    np.testing.assert_array_equal(np.concatenate([cut.ids(shard) for shard in range(count)]), np.arange(n))
    sizes = [cut.range(shard)[1] for shard in range(count)]
    assert max(sizes) - min(sizes) <= 1
    assert [cut.ids(shard)[0] for shard in range(count)] == [cut.range(shard)[0] for shard in range(count)]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("count", [5, 6, 64])
def test_every_shard_has_one_owner(size, count):
    cut = Partition(1000, count)
    owned = [cut.owned(rank, size) for rank in range(size)]
    assert sorted(shard for part in owned for shard in part) == list(range(count))
    assert max(map(len, owned)) == cut.rounds(size)
    assert max(map(len, owned)) - min(map(len, owned)) <= 1
