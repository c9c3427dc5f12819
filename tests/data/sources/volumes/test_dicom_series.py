"""Series as volumes: sorted by where slices are, whatever files are called."""

import numpy as np
import pytest
from dicoms import write_series
from pydicom import dcmread

from hpcule.config.errors import DataError
from hpcule.data.opening import Opening


def opened(folder):
    return Opening(volumes=True).source(str(folder))


def test_slices_are_sorted_by_position_and_not_by_name(tmp_path):
    expected = [write_series(tmp_path / "data" / name, number) for number, name in enumerate(("a", "b", "a"))]
    source = opened(tmp_path / "data")
    assert (source.kind, len(source), source.shape, source.depth) == ("dicom", 3, (1, 30, 7), 5)
    found = [source.native(sample).pixels[0] for sample in range(3)]
    for values in expected:
        assert sum(np.array_equal(values.reshape(-1, 7), volume) for volume in found) == 1
    assert source.labels.tolist() == [0, 0, 1]
    assert len(Opening().source(str(tmp_path / "data"))) == 15
    shown = source.read(np.arange(3))
    assert np.array_equal(shown[1], source.native(1).shown())


@pytest.mark.parametrize("orientation", [(1, 0, 0, 0, 1, 0), (0, 1, 0, 0, 0, -1), (-1, 0, 0, 0, -1, 0)])
def test_any_orientation_is_sorted_along_its_own_normal(tmp_path, orientation):
    values = write_series(tmp_path / "data", orientation=np.array(orientation, float))
    assert np.array_equal(opened(tmp_path / "data").native(0).pixels[0], values.reshape(-1, 7))


def remove(folder, position):
    """Remove the slice at a place of the order."""
    files = sorted(folder.iterdir(), key=lambda path: float(dcmread(path).ImagePositionPatient[2]))
    files[position].unlink()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: remove(folder, 2), r"are 5 mm apart, and other slices .* 2\.5 mm: a slice is missing; add it"),
        (lambda folder: tilt(folder), r"has another orientation than .*, in one series; put images"),
        (lambda folder: double(folder), r"are at one place, in one series; leave one out with exclude"),
        (lambda folder: clear(folder, "ImagePositionPatient"), r"has no ImagePositionPatient\); leave volumes=true"),
        (
            lambda folder: write_series(folder, 1, depth=4),
            r"volumes of different sizes: .* has 4 slices, .* has 5;",
        ),
        (lambda folder: write_series(folder, 1, size=8), r"images of different sizes.*; resample or crop all volumes"),
    ],
)
def test_what_is_no_volume_is_named_with_its_remedy(tmp_path, change, message):
    write_series(tmp_path / "data", names=[f"x{k}.dcm" for k in range(5)])
    change(tmp_path / "data")
    with pytest.raises(DataError, match=message):
        opened(tmp_path / "data")


def rewrite(path, **tags):
    header = dcmread(path)
    for name, value in tags.items():
        setattr(header, name, value)
    header.save_as(path)


def tilt(folder):
    rewrite(folder / "x3.dcm", ImageOrientationPatient=[0, 1, 0, 0, 0, 1])


def double(folder):
    rewrite(folder / "x3.dcm", ImagePositionPatient=dcmread(folder / "x2.dcm").ImagePositionPatient)


def clear(folder, name):
    rewrite(folder / "x3.dcm", **{name: None})


def test_slices_of_other_scales_are_no_volume(tmp_path):
    write_series(tmp_path / "data", names=[f"x{k}.dcm" for k in range(5)])
    rewrite(tmp_path / "data" / "x3.dcm", RescaleSlope=2)
    with pytest.raises(DataError, match=r"stores values of another scale or depth than other slices"):
        opened(tmp_path / "data").native(0)


def test_the_window_is_that_of_the_middle_or_of_all_slices(tmp_path):
    write_series(tmp_path / "one", names=[f"x{k}.dcm" for k in range(5)])
    rewrite(tmp_path / "one" / "x0.dcm", WindowWidth=100)
    volume = opened(tmp_path / "one").native(0)
    assert volume.grid.unit == pytest.approx(3999 / 255)
    values = write_series(tmp_path / "none", WindowCenter=None, WindowWidth=None)
    shown = opened(tmp_path / "none").read(np.array([0]))[0, 0]
    expected = np.rint((values.astype(float) - values.min()) / (values.max() - values.min()) * 255)
    assert np.abs(shown - expected.reshape(-1, 7)).max() <= 1
