"""A series that is one sample is published as the files that it was, each with its own slice."""

import numpy as np
import pytest
from dicoms import write_series
from pydicom import dcmread
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
