"""Tar shards, read back with tarfile and Pillow, and by the library that they are made for."""

from __future__ import annotations

import gc
import io
import json
import tarfile

import numpy as np
import pytest
import soundfile
from PIL import Image

from hpcule.data.sources.folder import FolderSource
from hpcule.publish import webdataset
from hpcule.publish.carry import published_native
from hpcule.publish.export import export
from hpcule.store.read import StoreReader
from hpcule.store.vault import Vault


def members(folder, shards):
    """Bytes by name, in the order of shards and members."""
    found = {}
    for shard in shards:
        with tarfile.open(folder / shard) as archive:
            found.update({info.name: archive.extractfile(info).read() for info in archive})
    return found


def image(data):
    with Image.open(io.BytesIO(data)) as opened:
        return np.asarray(opened)


def test_samples_and_class_numbers(make_source, make_store, tmp_path, monkeypatch):
    monkeypatch.setattr(webdataset, "SAMPLES", 20)
    source, test = make_source(split="train"), make_source(7, seed=5, split="test")
    store, _, delta, _ = make_store(source)
    export(Vault(store), source, tmp_path / "out", format="webdataset", other_splits={"test": test})
    shards = [f"train-{number:06d}.tar" for number in range(3)]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*shards, "test-000000.tar", "classes.json"}
    assert json.loads((tmp_path / "out" / "classes.json").read_text()) == ["class0", "class1", "class2"]
    found = members(tmp_path / "out", shards)
    assert list(found) == [f"{i:06d}{ending}" for i in range(50) for ending in (".png", ".cls")]
    for sample in range(50):
        expected = np.clip(source.samples[sample].astype(int) + delta[sample], 0, 255).transpose(1, 2, 0)
        np.testing.assert_array_equal(image(found[f"{sample:06d}.png"]), expected)
        assert int(found[f"{sample:06d}.cls"]) == source.labels[sample]
    copied = members(tmp_path / "out", ["test-000000.tar"])
    np.testing.assert_array_equal(image(copied["000006.png"]), test.samples[6].transpose(1, 2, 0))


def test_shards_keep_to_a_size_unless_a_sample_is_larger(make_source, make_store, tmp_path, monkeypatch):
    source = make_source(classes=0)
    store, *_ = make_store(source)
    for limit, expected in ((5000, 10), (1, 50)):
        monkeypatch.setattr(webdataset, "BYTES", limit)
        export(Vault(store), source, tmp_path / str(limit), format="webdataset")
        shards = sorted(path.name for path in (tmp_path / str(limit)).iterdir())
        assert len(shards) == expected
        assert list(members(tmp_path / str(limit), shards)) == [f"{i:06d}.png" for i in range(50)]


def test_members_tell_neither_time_nor_owner(make_source, make_store, tmp_path):
    source = make_source(8)
    store, *_ = make_store(source, shards=2)
    export(Vault(store), source, tmp_path / "out", format="webdataset")
    with tarfile.open(tmp_path / "out" / "000000.tar") as archive:
        facts = {(one.mtime, one.uid, one.gid, one.uname, one.gname, one.mode) for one in archive}
    assert facts == {(0, 0, 0, "", "", 0o644)}


def test_images_of_a_folder_at_their_own_sizes(make_store, tmp_path):
    rng, folder = np.random.default_rng(0), tmp_path / "images"
    folder.mkdir()
    for number in range(6):
        pixels = rng.integers(0, 256, (20 + number, 30, 4 if number == 2 else 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    source = FolderSource(folder, "all", image_size=16)
    store, *_ = make_store(source, shards=2)
    summary = export(Vault(store), source, tmp_path / "out", format="webdataset")
    assert summary.largest == 8
    found = members(tmp_path / "out", ["000000.tar"])
    assert image(found["000002.png"]).shape == (22, 30, 4)
    with StoreReader(Vault(store)) as reader:
        for sample in range(6):
            expected = published_native(reader, source, sample, source.native(sample)).pixels.transpose(1, 2, 0)
            np.testing.assert_array_equal(image(found[f"{sample:06d}.png"])[..., :3], expected)


def test_recordings(make_source, make_store, tmp_path):
    source = make_source(shape=(1, 1, 90), dtype=np.uint16)
    source.rate = 8000
    store, _, delta, _ = make_store(source)
    export(Vault(store), source, tmp_path / "out", format="webdataset")
    found = members(tmp_path / "out", ["000000.tar"])
    signal, rate = soundfile.read(io.BytesIO(found["000049.wav"]), dtype="int16")
    assert rate == 8000
    expected = np.clip(source.samples[49, 0, 0].astype(int) + delta[49, 0, 0], 0, 65535) - 32768
    np.testing.assert_array_equal(signal, expected)


@pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")
def test_the_library_reads_it(make_source, make_store, tmp_path):
    library = pytest.importorskip("webdataset")
    source = make_source()
    store, _, delta, _ = make_store(source)
    export(Vault(store), source, tmp_path / "out", format="webdataset")
    shards = str(tmp_path / "out" / "000000.tar")
    pairs = list(library.WebDataset(shards, shardshuffle=False).decode("rgb8").to_tuple("png", "cls"))
    gc.collect()  # the library leaves its files open
    assert [label for _, label in pairs] == source.labels.tolist()
    expected = np.clip(source.samples.astype(int) + delta, 0, 255).transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(np.stack([pixels for pixels, _ in pairs]), expected)
