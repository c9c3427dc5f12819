from __future__ import annotations

import numpy as np
import pytest
from toys import ToySource

from hpcule.victim.countermeasures.class_means import class_means
from hpcule.victim.published import Published

EVERYONE = np.arange(40)


def in_classes_of_patterns(ids, samples):
    """A perturbation that is the same for a class, and far from the ends of the grid."""
    patterns = np.random.default_rng(5).integers(-8, 9, (3, *samples.shape[1:]))
    return (samples.astype(int) + patterns[ids % 3]).astype(samples.dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_deviations_of_class_means_are_subtracted(dtype):
    source = ToySource(40, (3, 5, 4), dtype=dtype)
    train = Published(source, ids=EVERYONE[:31], resident=0)
    found = class_means(train)(EVERYONE, source.samples)
    own = source.samples[:31].astype(float)
    for number, sample in enumerate(source.samples):
        mean = own[source.labels[:31] == source.labels[number]].mean(0)
        expected = np.rint(sample - (mean - own.mean(0))).clip(0, source.levels)
        np.testing.assert_array_equal(found[number], expected)
    assert found.dtype == dtype


def test_a_perturbation_by_class_goes_whole():
    source = ToySource(39, contrast=0.1)
    train = Published(source, in_classes_of_patterns, resident=2**20)
    ids = EVERYONE[:39]
    without = class_means(Published(source, resident=2**20))(ids, source.samples)
    found = class_means(train)(ids, train.take(ids)[0].numpy())
    # But for the mean pattern, which does not tell classes apart.
    left = found.astype(int) - without
    assert np.ptp(left, axis=0).max() <= 1


def test_a_class_that_is_not_there_changes_nothing():
    source = ToySource(40)
    train = Published(source, ids=EVERYONE[source.labels != 1], resident=2**20)
    assert (class_means(train)(train.ids, source.samples[train.ids]) != source.samples[train.ids]).any()
