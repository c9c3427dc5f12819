"""What is published is what the store was made for, and the store what was crafted: before the export and after it."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import soundfile
from PIL import Image

import hpcule.store.fingerprint as fingerprint_module
from hpcule.config.errors import StoreError
from hpcule.data.opening import Opening
from hpcule.data.sources.wav import WavSource
from hpcule.publish.carry import as_crafted
from hpcule.publish.export import export
from hpcule.publish.revert import revert
from hpcule.store.vault import Vault

KINDS = [{}, {"unit": "class", "groups": 3}, {"compression": "gzip"}]
FORMATS = ["npz", "hdf5", "folder", "webdataset"]


def soften(store: Path, file: str) -> None:
    """Set a perturbation to zero, which leaves a valid HDF5 file within the budget."""
    with h5py.File(store / file, "r+") as opened:
        opened["delta"][0] = 0


def weakened(store: Path, manifest) -> str:
    file: str = manifest.shared.file if manifest.shared else manifest.shards[1].file
    soften(store, file)
    return file


@pytest.mark.parametrize("settings", KINDS)
@pytest.mark.parametrize("format", ["npz", "folder"])
def test_a_store_that_was_altered_is_not_published(make_source, make_store, tmp_path, settings, format):
    source = make_source()
    store, manifest, *_ = make_store(source, **settings)
    file = weakened(store, manifest)
    with pytest.raises(StoreError, match=f"{file}: SHA-256 differs"):
        export(Vault(store), source, tmp_path / "out", format=format)
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_labels_and_groups_of_an_altered_store(make_source, make_store, tmp_path):
    source = make_source()
    store, manifest, *_ = make_store(source, unit="class", groups=3)
    with h5py.File(store / manifest.shards[2].file, "r+") as opened:
        opened["group"][:] = 0
    with pytest.raises(StoreError, match="SHA-256 differs"):
        export(Vault(store), source, tmp_path / "out")


def test_an_altered_store_takes_nothing_off(make_source, make_store, tmp_path):
    source = make_source()
    store, manifest, *_ = make_store(source)
    export(Vault(store), source, tmp_path / "copy.npz")
    weakened(store, manifest)
    copy = Opening().source(str(tmp_path / "copy.npz"))
    with pytest.raises(StoreError, match="SHA-256 differs"):
        revert(Vault(store), copy, tmp_path / "back")
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("altered", ["sample", "store"])
def test_what_is_altered_after_the_first_look(make_source, make_store, tmp_path, monkeypatch, format, altered):
    monkeypatch.setattr(fingerprint_module, "_BLOCK_BYTES", 1000)
    source = make_source()
    store, manifest, *_ = make_store(source, shards=3)
    reads = []

    def read(ids):
        reads.append(int(ids[0]))
        if reads.count(0) == 2 and int(ids[0]) == 0:
            if altered == "sample":
                source.samples[49, 0, 0, 0] ^= 1
            else:
                soften(store, manifest.shards[2].file)
        return source.samples[ids]

    source.read = read
    with pytest.raises(StoreError, match="changed while" if altered == "sample" else "SHA-256 differs"):
        export(Vault(store), source, tmp_path / "out", format=format)
    assert reads.count(0) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


@pytest.fixture
def pictures(tmp_path) -> Path:
    rng = np.random.default_rng(0)
    for number in range(6):
        path = tmp_path / "in" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        shape = (30 + number, 41) if number == 4 else (30 + number, 41, 3)
        Image.fromarray(rng.integers(0, 256, shape, np.uint8)).save(path)
    return tmp_path / "in"


@pytest.mark.parametrize("opening", [{"image_size": 16}, {"tile_size": 16}, {"image_size": 16, "subset": 5}])
def test_files_that_are_replaced_meanwhile(pictures, make_store, tmp_path, opening):
    source = Opening(**opening).source(str(pictures))
    store, *_ = make_store(source, shards=2, applied_at="working", working_size=16, config=opening)
    summary = export(Vault(store), source, tmp_path / "unchanged")
    assert summary.protected == opening.get("subset", 6)

    def replace_one(clean, published):
        with Image.open(pictures / "a" / "0.png") as another:
            another.resize((41, 33)).save(pictures / "b" / "3.png")
        return {}

    with pytest.raises(StoreError, match="changed while"):
        export(Vault(store), source, tmp_path / "out", compare=replace_one)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "store", "unchanged"]


@pytest.mark.parametrize("opening", [{"image_size": 16}, {"tile_size": 16}])
def test_an_image_at_its_own_size_gives_the_samples_that_are_read(pictures, opening):
    source = Opening(**opening).source(str(pictures))
    files = source.images if "tile_size" in opening else source
    found = np.concatenate([as_crafted(source, files.native(image)) for image in range(len(files))])
    np.testing.assert_array_equal(found, source.read(np.arange(len(source))))


def test_a_recording_that_is_replaced_meanwhile(make_store, tmp_path):
    rng = np.random.default_rng(0)
    for number in range(4):
        path = tmp_path / "in" / "ab"[number % 2] / f"{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, rng.uniform(-0.9, 0.9, (60, 2)), 16000, subtype="PCM_24")

    class Replaced(WavSource):
        def recording(self, sample):
            found = super().recording(sample)
            return found._replace(samples=-found.samples) if sample == 3 else found

    source = Opening().source(str(tmp_path / "in"))
    store, *_ = make_store(source, epsilon=700.0, shards=2)
    export(Vault(store), source, tmp_path / "copy")
    with pytest.raises(StoreError, match="changed while"):
        export(Vault(store), Replaced(tmp_path / "in", "all"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
