import numpy as np
import pytest

from hpcule.config.errors import DataError
from hpcule.data.check import check_same_task
from hpcule.data.sources.array import ArraySource


def source(labels=(0, 1, 2), shape=(4, 4), dtype=np.uint8, names=None, split="train"):
    labels = None if labels is None else np.array(labels)
    images = np.zeros((3, *shape), dtype)
    return ArraySource(images, labels, name="set", kind="npz", split=split, where="set", class_names=names)


def test_what_fits():
    check_same_task(source(), source(split="test"))
    check_same_task(source(), source((0, 1, 1)))
    check_same_task(source(None), source())
    check_same_task(source(names=("cat", "dog", "emu")), source(names=("cat", "dog", "emu")))
    check_same_task(source(names=("cat", "dog", "emu")), source())
    check_same_task(source(), source(names=("cat", "dog", "emu")))


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        ({}, {"shape": (4, 4, 3)}, r"3 channel\(s\), not 1"),
        ({}, {"shape": (8, 4)}, r"8x4 pixels, not 4x4; .*--set image_size=4"),
        ({}, {"dtype": np.uint16}, "values up to 65535, not 255"),
        ({}, {"labels": None}, "it has no labels"),
        ({}, {"labels": (0, 3, 1)}, "label 3 where training knows 3 classes"),
        ({"names": ("cat", "dog", "emu")}, {"names": ("cat", "emu", "fox")}, "classes are cat, emu, fox, not cat, dog"),
        ({"names": ("cat", "dog", "emu")}, {"labels": (0, 0, 0), "names": ("dog",)}, "classes are dog, not cat, dog"),
        ({}, {"names": ("0", "10", "2")}, "classes are 0, 10, 2, not 0, 1, 2"),
        ({"names": ("0", "2", "1")}, {}, "classes are 0, 1, 2, not 0, 2, 1"),
    ],
)
def test_what_does_not_fit(train, test, message):
    with pytest.raises(DataError, match="test source set:test does not fit training source set:train: .*" + message):
        check_same_task(source(**train), source(**test, split="test"))
