"""Volumes are published whole, with their masks as they are, in `images` and `masks` or in nnU-Net's layout."""

import json

import nibabel
import numpy as np
import pytest
from toys import store_of
from volumes import AFFINE, NAMES, sphere_volume, write_decathlon, write_nnunet, write_pairs, write_volume

from hpcule.config.errors import StoreError, UsageError
from hpcule.data.opening import Opening
from hpcule.publish.release import release
from hpcule.publish.volumes import Nnunet
from hpcule.store.verify import verify

EPSILON = 8
VOXELS = "method.task=segmentation"


def stored(path):
    return np.asanyarray(nibabel.load(path).dataobj.get_unscaled())


def check_copy(data, copy, place, count=6):
    """Voxel by voxel: volumes within the budget and changed, masks as they were, all at the same place in space."""
    for number in range(count):
        image, mask = (copy / name for name in place(number))
        values, classes = sphere_volume(number, 8)
        black, white = np.percentile(values, (0.5, 99.5))
        bound = int(EPSILON * (white - black) / 255 + 1e-3)
        change = np.abs(stored(image).astype(int) - values)
        assert 0 < change.max() <= bound
        assert (change > 0).mean() > 0.8
        assert np.array_equal(stored(mask), classes)
        for path in (image, mask):
            header = nibabel.load(path).header
            assert np.allclose(header.get_best_affine(), AFFINE)
            assert header.get_zooms() == pytest.approx((0.7, 0.7, 2.5))
            assert b"DOE" not in header["descrip"].tobytes()
        assert stored(image).dtype == np.int16


def test_pairs_come_back_as_pairs(tmp_path):
    data = write_pairs(tmp_path / "data")
    (data / "classes.txt").write_text("0 background\n1 striped\n2 smooth\n")
    vault = store_of(data, tmp_path / "store", VOXELS)
    assert verify(vault, Opening().source(str(data))) == []
    written = release(vault, str(data), tmp_path / "copy")
    assert (written.summary.format, written.summary.protected) == ("nifti", 6)
    check_copy(data, tmp_path / "copy", lambda k: (f"images/{k:06d}.nii.gz", f"masks/{k:06d}.nii.gz"))
    again = Opening().source(str(tmp_path / "copy"))
    assert (again.masks.names, again.depth, len(again)) == (NAMES, 8, 6)
    masks = [record for record in written.summary.records if record.excluded]
    assert len(masks) == 6
    assert {record.note for record in masks} == {"a mask: copied without a perturbation"}


@pytest.mark.parametrize("write", [write_nnunet, write_decathlon])
def test_listed_volumes_come_back_in_the_layout_of_nnunet(tmp_path, write):
    data = write(tmp_path / "data")
    release(store_of(data, tmp_path / "store", VOXELS), str(data), tmp_path / "copy")

    def places(k):
        return f"imagesTr/case_{k:06d}_0000.nii.gz", f"labelsTr/case_{k:06d}.nii.gz"

    check_copy(data, tmp_path / "copy", places)
    described = json.loads((tmp_path / "copy" / "dataset.json").read_text())
    assert described["labels"] == dict(zip(NAMES, range(3), strict=True))
    assert (described["numTraining"], described["file_ending"]) == (6, ".nii.gz")
    assert described["training"][2] == dict(zip(("image", "label"), places(2), strict=True))
    assert len(Opening().source(str(tmp_path / "copy"))) == 6


def test_a_test_split_is_copied_next_to_it_and_names_may_stay(tmp_path):
    data = write_nnunet(tmp_path / "data", 4, tests=2)
    written = release(store_of(data, tmp_path / "store", VOXELS), str(data), tmp_path / "copy", dicom_tags="keep")
    assert written.summary.copied == {"test": 2}
    assert sorted(path.name for path in (tmp_path / "copy" / "imagesTs").iterdir()) == [
        "P4_0000.nii.gz",
        "P5_0000.nii.gz",
    ]
    assert np.array_equal(stored(tmp_path / "copy" / "imagesTs" / "P5_0000.nii.gz"), sphere_volume(5, 8)[0])
    assert np.array_equal(stored(tmp_path / "copy" / "labelsTs" / "P5.nii.gz"), sphere_volume(5, 8)[1])


def test_volumes_alone_and_pairs_take_other_formats(tmp_path):
    data = write_pairs(tmp_path / "data", ending=".nii")
    vault = store_of(data, tmp_path / "store", VOXELS)
    release(vault, str(data), tmp_path / "nnunet", format="nnunet")
    check_copy(data, tmp_path / "nnunet", lambda k: Nnunet(False).of("train", Opening().source(str(data)), k))
    for format in ("npz", "folder", "dicom"):
        with pytest.raises(UsageError, match="choose the format nifti or nnunet"):
            release(vault, str(data), tmp_path / format, format=format)
        assert not (tmp_path / format).exists()


def test_masks_with_gaps_do_not_go_into_the_layout_of_nnunet(tmp_path):
    data = write_pairs(tmp_path / "data", 4)
    for path in (data / "masks").iterdir():
        write_volume(path, stored(path) * np.uint8(2))
    vault = store_of(data, tmp_path / "store", VOXELS)
    with pytest.raises(UsageError, match="these hold 0, 2, 4, which stay as they are: choose the format nifti"):
        release(vault, str(data), tmp_path / "copy", format="nnunet")
    release(vault, str(data), tmp_path / "copy")
    assert set(np.unique(stored(tmp_path / "copy" / "masks" / "000001.nii.gz"))) == {0, 2, 4}


def test_a_copy_that_is_written_wrongly_is_not_published(tmp_path, monkeypatch):
    data = write_nnunet(tmp_path / "data", 4)
    vault = store_of(data, tmp_path / "store", VOXELS)
    write = nibabel.openers.Opener.write
    monkeypatch.setattr(nibabel.openers.Opener, "write", lambda self, data: write(self, bytes(data)[:-1] + b"\7"))
    with pytest.raises(StoreError, match=r"read again, is not what was to be published"):
        release(vault, str(data), tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
