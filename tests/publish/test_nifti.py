"""A volume comes back in the same place, type and scale, changed by no more than the budget in stored values."""

from __future__ import annotations

import gzip

import nibabel
import numpy as np
import pytest

from hpcule.data.sources.nifti import NiftiSource
from hpcule.publish.carry import publishing
from hpcule.publish.export import export
from hpcule.store.read import StoreReader
from hpcule.store.vault import Vault

EPSILON = 8
SECRET = b"Mustermann"
AFFINE = np.array([[0, 2.5, 0, -9], [-2, 0, 0.1, 4], [0, 0, 3, 1], [0, 0, 0, 1]])


def collection(root):
    """Volumes of three types: one with a window, a scale and texts, one in another byte order, and one of bytes."""
    rng = np.random.default_rng(0)
    kinds = {"a/mustermann.nii": "<i2", "a/deep/x.nii.gz": ">u2", "b/y.nii": "u1"}
    for name, dtype in kinds.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        values = rng.integers(0, 250, (12, 10, 4)).astype(dtype)
        header = nibabel.Nifti1Header(endianness=dtype[0] if dtype[0] in "<>" else "<")
        header.set_data_dtype(values.dtype)
        image = nibabel.Nifti1Image(values, AFFINE, header)
        image.header["descrip"], image.header["aux_file"] = SECRET, SECRET
        image.header["intent_name"], image.header["db_name"] = SECRET, SECRET
        image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", SECRET))
        if dtype == "<i2":
            image.header["cal_min"], image.header["cal_max"] = -10, 90
        nibabel.save(image, path)
    raw = bytearray((root / "a/mustermann.nii").read_bytes())
    raw[112:120] = np.array([0.5, -10], "<f4").tobytes()
    (root / "a/mustermann.nii").write_bytes(raw)
    return root


def stored(path):
    return np.asanyarray(nibabel.load(path).dataobj.get_unscaled())


@pytest.mark.parametrize("policy", ["keep", "basic-deidentify"])
def test_volumes_come_back(tmp_path, make_store, policy):
    data = collection(tmp_path / "data")
    source = NiftiSource(data, "all", image_size=8)
    store, *_ = make_store(source, working_size=8, applied_at="working")
    summary = export(Vault(store), source, tmp_path / "copy", dicom_tags=policy)
    assert [record.file for record in summary.records] == ["a/mustermann.nii", "a/deep/x.nii.gz", "b/y.nii"]
    names = [record.published for record in summary.records]
    kept = [record.file for record in summary.records]
    assert names == (kept if policy == "keep" else ["a/000000.nii", "a/000001.nii.gz", "b/000002.nii"])
    for record in summary.records:
        before, after = nibabel.load(data / record.file), nibabel.load(tmp_path / "copy" / record.published)
        assert np.array_equal(before.affine, after.affine)
        assert before.get_data_dtype() == after.get_data_dtype()
        assert (before.dataobj.slope, before.dataobj.inter) == (after.dataobj.slope, after.dataobj.inter)
        old, new = stored(data / record.file).astype(int), stored(tmp_path / "copy" / record.published).astype(int)
        window = (0, 200) if record.file == "a/mustermann.nii" else np.percentile(old, (0.5, 99.5))
        bound = int(EPSILON * (window[1] - window[0]) / 255)
        assert bound // 2 < np.abs(new - old).max() <= bound == int(record.numbers["stored_budget"])
        raw = (tmp_path / "copy" / record.published).read_bytes()
        assert SECRET not in (gzip.decompress(raw) if record.published.endswith(".gz") else raw)
    again = NiftiSource(tmp_path / "copy", "all", image_size=8)
    ids = np.arange(len(source))
    with StoreReader(Vault(store)) as reader:
        seen = publishing(reader, source)(ids, source.read(ids))
    numbers = [again.files.index(name) for name in names]
    order = np.concatenate([again.of_file(number) for number in numbers])
    assert np.array_equal(seen, again.read(order))


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 3), (6, 5, 4, 3), (6, 5, 2, 1, 3), (6, 5, 1, 2, 2, 2)])
def test_each_voxel_stays_where_it_is(tmp_path, make_store, shape):
    """The budget is small and the values of neighbours are far from each other, in the other split as well."""
    values = (np.arange(np.prod(shape)) * 7919 % 32000).reshape(shape)
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        volume = nibabel.Nifti1Image(values.astype(np.int16), np.eye(4))
        volume.header["cal_min"], volume.header["cal_max"] = 0, 255
        nibabel.save(volume, tmp_path / split / "x.nii")
    source, test = (NiftiSource(tmp_path, split, image_size=8) for split in ("train", "test"))
    store, *_ = make_store(source, shards=1, working_size=8, applied_at="working")
    export(Vault(store), source, tmp_path / "copy", other_splits={"test": test}, dicom_tags="keep")
    after = stored(tmp_path / "copy" / "train" / "x.nii").astype(int)
    assert after.shape == shape
    assert 0 < np.abs(after - values).max() <= EPSILON
    assert np.array_equal(stored(tmp_path / "copy" / "test" / "x.nii"), values)
