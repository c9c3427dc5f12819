"""Labels from the elements of DICOM files."""

import numpy as np
import pytest
from dicoms import write_dicom

from hpcule.config.errors import DataError, UsageError
from hpcule.data.annotations import UNKNOWN
from hpcule.data.opening import Opening

SEXES = ["F", "M", "F", None, "M"]
VIEWS = ["PA", "AP", "LL", "PA", "PA"]


def write(folder, count=5):
    for number in range(count):
        pixels = np.full((4, 4), number, np.uint16)
        tags = {"WindowCenter": 2, "WindowWidth": 4, "ViewPosition": VIEWS[number], "PatientSex": SEXES[number]}
        write_dicom(folder / f"{number}.dcm", pixels, bits=12, **tags)
    return str(folder)


def opened(data, *labels):
    return Opening(dicom_labels=labels).source(data)


def test_one_element_gives_classes_and_several_give_labels(tmp_path):
    data = write(tmp_path / "data")
    source = opened(data, "ViewPosition")
    assert source.class_names == ("AP", "LL", "PA")
    assert source.labels.tolist() == [2, 0, 1, 2, 2]
    matrix = opened(data, "PatientSex", "ViewPosition").label_matrix
    assert matrix.names == ("PatientSex=F", "PatientSex=M", "ViewPosition=AP", "ViewPosition=LL", "ViewPosition=PA")
    assert matrix.values[:, 0].tolist() == [1, 0, 1, UNKNOWN, 0]
    assert matrix.values[:, 4].tolist() == [1, 0, 0, 1, 1]


def test_classes_are_those_of_all_splits(tmp_path):
    write(tmp_path / "data" / "train", 2)
    write(tmp_path / "data" / "test", 3)
    source = opened(str(tmp_path / "data"), "ViewPosition")
    assert (source.class_names, source.labels.tolist()) == (("AP", "LL", "PA"), [2, 0])


@pytest.mark.parametrize(
    ("names", "error", "message"),
    [
        (["PatientSex"], DataError, r"3\.dcm has no PatientSex; leave it out with exclude, or name several"),
        (["PatientSecks"], UsageError, r"PatientSecks is no element .*did you mean PatientSex"),
        (["PatientID"], UsageError, r"PatientID is no element that may be a label"),
    ],
)
def test_what_is_no_label_is_named(tmp_path, names, error, message):
    with pytest.raises(error, match=message):
        opened(write(tmp_path / "data"), *names)


def test_elements_are_for_dicom(tmp_path):
    np.savez(tmp_path / "flat.npz", images=np.zeros((2, 4, 4), np.uint8))
    with pytest.raises(UsageError, match=r"flat holds no DICOM files: leave it out"):
        opened(str(tmp_path / "flat.npz"), "PatientSex")
