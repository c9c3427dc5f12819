"""Volumes whole, as samples, and their masks."""

import nibabel
import numpy as np
import pytest
from volumes import AFFINE, NAMES, sphere_volume, write_decathlon, write_nnunet, write_pairs, write_volume

from hpcule.config.errors import DataError, HpculeError, UsageError
from hpcule.data.opening import Opening


def stacked(values):
    """Slices along the third axis, each with the second axis down, one below the other."""
    return np.concatenate([values[:, :, k].T for k in range(values.shape[2])])


@pytest.mark.parametrize("write", [write_pairs, write_nnunet, write_decathlon])
def test_every_layout_gives_the_same_volumes_and_masks(tmp_path, write):
    source = Opening().source(str(write(tmp_path / "data")))
    assert (source.kind, len(source), source.shape, source.depth) == ("nifti", 6, (1, 64, 8), 8)
    for number in range(6):
        values, mask = sphere_volume(number, 8)
        assert np.array_equal(source.native(number).pixels[0], stacked(values))
        assert np.array_equal(source.masks.read(np.array([number]))[0], stacked(mask))
    assert source.masks.names == (NAMES if write is not write_pairs else ("background", "1", "2"))
    assert source.ignored == []
    assert source.labels is None


def test_slices_are_the_default_of_volumes_without_masks(tmp_path):
    write_volume(tmp_path / "data" / "sick" / "a.nii", sphere_volume(0, 8)[0])
    write_volume(tmp_path / "data" / "well" / "b.nii", sphere_volume(1, 8)[0])
    assert len(Opening().source(str(tmp_path / "data"))) == 16
    source = Opening(volumes=True).source(str(tmp_path / "data"))
    assert (len(source), source.shape, source.depth, source.masks) == (2, (1, 64, 8), 8, None)
    assert source.labels.tolist() == [0, 1]


def test_test_folders_are_a_split(tmp_path):
    source = Opening().test(str(write_nnunet(tmp_path / "data", 3, tests=2)), None)
    assert (len(source), source.split) == (2, "test")
    assert np.array_equal(source.masks.native(1), stacked(sphere_volume(4, 8)[1]))


def change_mask(folder, **changes):
    path = folder / "masks" / "p2.nii.gz"
    mask = nibabel.load(path)
    values, affine = np.asarray(mask.dataobj), mask.affine
    write_volume(path, changes.get("values", lambda one: one)(values), changes.get("affine", lambda one: one)(affine))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"values": lambda one: one[:, :, 1:]},
            r"p2\.nii\.gz has 8x8x7 voxels, .* has 8x8x8; give both",
        ),
        ({"affine": lambda one: one[[1, 0, 2, 3]]}, r"p2\.nii\.gz lies at another place in space than its volume"),
        (
            {"values": lambda one: one.astype(np.float32) + 0.5},
            r"p2\.nii\.gz: a mask with the value 0\.5; valid",
        ),
    ],
)
def test_a_mask_that_does_not_fit_is_named(tmp_path, change, message):
    folder = write_pairs(tmp_path / "data", 3)
    change_mask(folder, **change)
    with pytest.raises(DataError, match=message):
        Opening().source(str(folder)).masks.names  # noqa: B018


def test_masks_without_a_background_are_refused(tmp_path):
    folder = write_pairs(tmp_path / "data", 3)
    for path in (folder / "masks").iterdir():
        write_volume(path, np.asarray(nibabel.load(path).dataobj) + np.uint8(1))
    with pytest.raises(DataError, match=r"masks with the values 1, 2, 3; valid is 0 for the background"):
        Opening().source(str(folder)).masks.names  # noqa: B018


def test_masks_of_floats_and_of_a_scale_are_numbers_too(tmp_path):
    folder = write_pairs(tmp_path / "data", 3)
    change_mask(folder, values=lambda one: one.astype(np.float32))
    assert np.array_equal(Opening().source(str(folder)).masks.native(2), stacked(sphere_volume(2, 8)[1]))


def test_volumes_that_lack_something_are_named(tmp_path):
    folder = write_pairs(tmp_path / "data", 3)
    (folder / "masks" / "p1.nii.gz").unlink()
    with pytest.raises(DataError, match=r"images/p1\.nii\.gz has no mask .*masks/p1\.nii\.gz; add it, or leave"):
        Opening().source(str(folder))
    assert len(Opening(exclude=("images/p1.nii.gz",)).source(str(folder))) == 2
    write_volume(folder / "images" / "p1.nii.gz", sphere_volume(0, 9)[0])
    with pytest.raises(DataError, match=r"volumes of different sizes: .*p0\.nii\.gz is 8x8x8, .*p1\.nii\.gz is 9x9x9"):
        Opening().source(str(folder))


def test_sizes_and_slices_do_not_go_together(tmp_path):
    folder = str(write_pairs(tmp_path / "data", 2))
    with pytest.raises(UsageError, match="image_size and tile_size are for images, and nifti holds volumes"):
        Opening(image_size=4).source(folder)
    np.savez(tmp_path / "flat.npz", images=np.zeros((2, 4, 4), np.uint8))
    with pytest.raises(UsageError, match="volumes=true: flat holds no volumes"):
        Opening(volumes=True).source(str(tmp_path / "flat.npz"))


def test_four_axes_are_no_volume(tmp_path):
    write_volume(tmp_path / "data" / "a.nii", np.zeros((4, 4, 2, 3), np.int16))
    with pytest.raises(DataError, match=r"its axes are \[4, 4, 2, 3\], and a volume has three"):
        Opening(volumes=True).source(str(tmp_path / "data"))
    write_volume(tmp_path / "data" / "a.nii", np.zeros((4, 4, 2, 1), np.int16))
    assert Opening(volumes=True).source(str(tmp_path / "data")).depth == 2


def test_the_affine_decides_and_not_its_last_digits(tmp_path):
    folder = write_pairs(tmp_path / "data", 3)
    change_mask(folder, affine=lambda one: one + 1e-4 * np.eye(4))
    assert Opening().source(str(folder)).masks is not None
    assert AFFINE[0, 0] < 0


def test_errors_are_ours(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    (tmp_path / "images" / "a.nii").write_bytes(b"no volume")
    (tmp_path / "masks" / "a.nii").write_bytes(b"no volume")
    with pytest.raises(HpculeError, match=r"a\.nii cannot be read as a NIfTI volume"):
        Opening().source(str(tmp_path))
