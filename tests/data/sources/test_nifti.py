"""Every slice of a volume is a sample, shown through the header's window or that of most values."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest

from hpcule.config.errors import DataError
from hpcule.data.opening import Opening
from hpcule.data.sources.nifti import NiftiSource, holds_volumes


def write(path, values, *, slope=1.0, intercept=0.0, window=(0, 0), kind=nibabel.Nifti1Image):
    """A volume of these stored values, written by nibabel."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = kind(values, np.diag([2.0, 3.0, 4.0, 1.0]))
    image.header["cal_min"], image.header["cal_max"] = window
    image.header.set_data_dtype(values.dtype)
    nibabel.save(image, path)
    if (slope, intercept) != (1.0, 0.0):
        # nibabel chooses the scale itself: 112 and 116 are where the header has it.
        raw = bytearray(path.read_bytes())
        raw[112:120] = np.array([slope, intercept], "<f4").tobytes()
        path.write_bytes(raw)
    return path


def noise(*shape, dtype=np.int16, seed=0):
    return np.random.default_rng(seed).integers(0, 200, shape).astype(dtype)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_slices_are_samples_with_the_second_axis_down(tmp_path, ending, kind):
    values = noise(5, 7, 3)
    write(tmp_path / "data" / "sick" / "deep" / f"a{ending}", values, window=(0, 255), kind=kind)
    write(tmp_path / "data" / "well" / f"b{ending}", values[:, :, :1], window=(0, 255), kind=kind)
    source = Opening().source(str(tmp_path / "data"))
    assert (source.kind, source.name, len(source), source.shape) == ("nifti", "nifti", 4, (1, 7, 5))
    assert source.labels.tolist() == [0, 0, 0, 1]
    assert source.class_names == ("sick", "well")
    expected = [values[:, :, k].T[None] for k in (0, 1, 2, 0)]
    assert np.array_equal(source.read(np.arange(4)), np.stack(expected))


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.uint16, ">i2"])
def test_the_window_is_of_most_values_where_the_header_has_none(tmp_path, dtype):
    values = noise(20, 20, 4, dtype=dtype) // 2
    write(tmp_path / "data" / "a.nii", values)
    source = NiftiSource(tmp_path / "data", "all")
    black, white = np.percentile(values, (0.5, 99.5))
    expected = np.rint(np.clip((values.astype(float) - black) / (white - black), 0, 1) * 255)
    assert np.array_equal(source.read(np.arange(4))[:, 0], expected.transpose(2, 1, 0))
    assert source.labels is None


def test_a_scale_is_between_stored_values_and_the_window(tmp_path):
    values = noise(6, 6, 2)
    path = write(tmp_path / "data" / "a.nii", values, slope=0.5, intercept=-10, window=(-10, 80))
    assert np.allclose(nibabel.load(path).get_fdata(), values * 0.5 - 10)
    source = NiftiSource(tmp_path / "data", "all")
    assert np.array_equal(source.native(1).pixels[0], values[:, :, 1].T)
    assert source.native(0).grid.unit == pytest.approx(180 / 255)
    expected = np.rint(np.clip(values[:, :, 0].T / 180.0, 0, 1) * 255)
    assert np.array_equal(source.read(np.array([0]))[0, 0], expected)


def test_floats_and_damaged_volumes_are_named_or_left_out(tmp_path):
    folder = tmp_path / "data"
    write(folder / "good.nii", noise(4, 4, 2))
    write(folder / "float.nii", noise(4, 4, 2).astype(np.float32))
    (folder / "short.nii.gz").write_bytes(b"no volume")
    with pytest.raises(DataError, match=r"float\.nii cannot be read as a NIfTI volume \(it stores float32; convert"):
        NiftiSource(folder, "all")
    source = NiftiSource(folder, "all", skip_unreadable=True)
    assert [entry.file for entry in source.left_out] == ["float.nii", "short.nii.gz"]
    assert len(source) == 2


def test_other_axes_are_slices_too(tmp_path):
    values = noise(4, 5, 2, 3)
    write(tmp_path / "data" / "a.nii", values, window=(0, 255))
    source = NiftiSource(tmp_path / "data", "all")
    assert len(source) == 6
    assert np.array_equal(source.read(np.array([4]))[0, 0], values[:, :, 1, 1].T)


def test_the_first_file_says_what_a_folder_holds(tmp_path):
    assert not holds_volumes(tmp_path)
    (tmp_path / "a.png").touch()
    assert not holds_volumes(tmp_path)
