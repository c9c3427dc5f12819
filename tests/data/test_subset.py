import numpy as np
import pytest
from toys import ToySource

from hpcule.config.errors import UsageError
from hpcule.data.subset import Subset


def test_a_subset_is_spread_evenly_and_keeps_its_classes():
    source = ToySource(60, classes=3)
    subset = Subset(source, 7)
    ids = [number * 60 // 7 for number in range(7)]
    assert len(subset) == 7
    assert (subset.read(np.arange(7)) == source.samples[ids]).all()
    assert (subset.read(np.array([5, 0])) == source.samples[[ids[5], 0]]).all()
    assert (subset.labels == source.labels[ids]).all()
    assert (subset.class_count, subset.shape, subset.levels) == (3, source.shape, 255)


def test_all_of_a_source_is_the_source():
    source = ToySource(20, labelled=False)
    subset = Subset(source, 20)
    assert (subset.read(np.arange(20)) == source.samples).all()
    assert subset.labels is None


@pytest.mark.parametrize("count", [0, 61])
def test_more_than_there_are_is_refused(count):
    with pytest.raises(UsageError, match=f"{count} samples of toys: valid are 1 to 60"):
        Subset(ToySource(60), count)
