"""A series that is one sample is published as the files that it was, each with its own slice."""

import numpy as np
import pytest
from dicoms import write_series
from pydicom import dcmread
from segmentations import write_study
from toys import store_of

from hpcule.data.opening import Opening
from hpcule.publish.release import release
from hpcule.store.verify import verify


@pytest.mark.parametrize("policy", ["basic-deidentify", "minimal", "keep"])
def test_series_come_back_slice_by_slice(tmp_path, policy):
    data = tmp_path / "data"
    series = {name: write_series(data / name, number) for number, name in enumerate(("sick", "well"))}
    vault, source = store_of(data, tmp_path / "store", "volumes=true"), Opening(volumes=True).source(str(data))
    assert verify(vault, source) == []
    written = release(vault, str(data), tmp_path / "copy", dicom_tags=policy)
    assert written.summary.protected == 2
    for (name, values), files in zip(series.items(), source.series, strict=True):
        own = [record for record in written.summary.records if record.file.startswith(name)]
        assert [record.file for record in own] == [source.slices.files[file] for file in files]
        changes = []
        for values_of_slice, record in zip(values, own, strict=True):
            found = dcmread(tmp_path / "copy" / record.published)
            changes.append(np.abs(found.pixel_array.astype(int) - values_of_slice))
            if policy != "minimal":
                assert float(found.WindowWidth) == 4000
        assert 0 < np.max(changes) <= 8 * 3999 / 255
        assert (np.array(changes) > 0).mean() > 0.8
    if policy != "minimal":
        again = Opening(volumes=True).source(str(tmp_path / "copy"))
        assert (len(again), again.depth) == (2, 5)


@pytest.mark.parametrize("policy", ["basic-deidentify", "keep"])
def test_segmentations_are_copied_and_still_refer_to_the_images(tmp_path, policy):
    data = tmp_path / "data"
    masks = write_study(data)
    vault = store_of(data, tmp_path / "store", "volumes=true", "method.task=segmentation", "store.shards=1")
    written = release(vault, str(data), tmp_path / "copy", dicom_tags=policy)
    (record,) = [one for one in written.summary.records if one.excluded]
    assert (record.file, record.note) == ("seg0.dcm", "a mask: copied without a perturbation")
    again = Opening(volumes=True).source(str(tmp_path / "copy"))
    assert again.masks.names == ("background", "lesion", "liver")
    assert np.array_equal(again.masks.native(0), masks.reshape(-1, 7))
    if policy != "keep":
        assert b"Mustermann" not in (tmp_path / "copy" / record.published).read_bytes()


def test_the_policy_minimal_leaves_segmentations_out(tmp_path):
    data = tmp_path / "data"
    write_study(data)
    vault = store_of(data, tmp_path / "store", "volumes=true", "method.task=segmentation", "store.shards=1")
    written = release(vault, str(data), tmp_path / "copy", dicom_tags="minimal")
    assert [one.published for one in written.summary.records if one.file == "seg0.dcm"] == [""]
