"""What every source has in common: class numbers in a narrow type, and as torch wants them."""

import numpy as np
import pytest
from toys import ToySource

from hpcule.data.source import narrowest


@pytest.mark.parametrize(
    ("largest", "dtype"), [(0, np.int8), (127, np.int8), (128, np.int16), (32_767, np.int16), (32_768, np.int32)]
)
def test_class_numbers_are_kept_in_the_narrowest_signed_type(largest, dtype):
    labels = np.array([0, largest, largest // 2], np.int64)
    kept = narrowest(labels)
    assert kept.dtype == dtype
    assert kept.tolist() == labels.tolist()


def test_no_labels_are_of_a_narrow_type_too():
    assert narrowest(np.zeros(0, np.int64)).dtype == np.int8


def test_classes_of_some_samples_are_as_wide_as_torch_wants_them():
    source = ToySource(12)
    source.labels = narrowest(source.labels)
    ids = np.array([7, 2, 2])
    for chosen in (ids, slice(3, 9)):
        found = source.classes(chosen)
        assert found.dtype == np.int64
        np.testing.assert_array_equal(found, source.labels[chosen])
