from __future__ import annotations

import contextlib
import re
import struct
import time
import tracemalloc
import zipfile

import h5py
import numpy as np
import pytest
from PIL import Image

import hpcule.store.fingerprint as fingerprint_module
from hpcule.config.errors import StoreError, UsageError
from hpcule.publish.export import export
from hpcule.store.vault import Vault

KINDS = [{}, {"norm": "l2", "epsilon": 40.0}, {"unit": "class", "groups": 3}]


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    monkeypatch.setattr(fingerprint_module, "_BLOCK_BYTES", 1000)


def protected(source, delta, group):
    """[n, H, W, C], slow and obvious."""
    out = source.samples.astype(np.int64)
    for sample in range(len(source)):
        out[sample] += delta[sample if group is None else group[sample]]
    return np.clip(out, 0, source.levels).astype(source.dtype).transpose(0, 2, 3, 1)


def tree(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def load_h5(path):
    with h5py.File(path, "r") as file:
        assert len(file.attrs) == 0
        assert all(len(file[name].attrs) == 0 for name in file)
        return {name: file[name][()] for name in file}


def load(path):
    return load_h5(path) if path.suffix == ".h5" else dict(np.load(path, allow_pickle=False))


def png(path):
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.mark.parametrize("settings", KINDS)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(("format", "ending"), [("npz", ".npz"), ("hdf5", ".h5")])
def test_arrays(make_source, make_store, tmp_path, settings, dtype, format, ending):
    source = make_source(dtype=dtype)
    store, manifest, delta, group = make_store(source, **settings)
    summary = export(Vault(store), source, tmp_path / "out", format=format)
    assert tree(tmp_path / "out") == [f"toys-protected{ending}"]
    path = tmp_path / "out" / f"toys-protected{ending}"
    found = load(path)
    assert set(found) == {"images", "labels"}
    assert found["images"].dtype == dtype
    assert found["labels"].dtype == np.int64
    np.testing.assert_array_equal(found["images"], protected(source, delta, group))
    np.testing.assert_array_equal(found["labels"], source.labels)
    assert (summary.path, summary.format, summary.protected, summary.copied) == (tmp_path / "out", format, 50, {})
    assert summary.bytes == path.stat().st_size
    assert 0 < summary.largest <= manifest.epsilon


@pytest.mark.parametrize("format", ["npz", "hdf5"])
def test_splits_are_laid_out_like_medmnist(make_source, make_store, tmp_path, format):
    source = make_source(shape=(1, 6, 5), split="train")
    test = make_source(7, shape=(1, 6, 5), seed=5, split="test")
    store, _, delta, _ = make_store(source)
    path = tmp_path / ("out.npz" if format == "npz" else "out.h5")
    summary = export(Vault(store), source, path, other_splits={"test": test})
    assert summary.copied == {"test": 7}
    found = load(path)
    assert set(found) == {"train_images", "train_labels", "test_images", "test_labels"}
    np.testing.assert_array_equal(found["train_images"], protected(source, delta, None)[..., 0])
    np.testing.assert_array_equal(found["train_labels"], source.labels[:, None])
    np.testing.assert_array_equal(found["test_images"], test.samples[:, 0])
    np.testing.assert_array_equal(found["test_labels"], test.labels[:, None])


@pytest.mark.parametrize("format", ["npz", "hdf5"])
def test_unlabelled_arrays(make_source, make_store, tmp_path, format):
    source = make_source(classes=0)
    store, *_ = make_store(source)
    export(Vault(store), source, tmp_path / "out", format=format)
    (path,) = (tmp_path / "out").iterdir()
    assert set(load(path)) == {"images"}


def test_the_default_format_is_the_sources_own(make_source, make_store, tmp_path):
    for kind, expected in {"idx": "npz", "npz": "npz", "hdf5": "hdf5", "folder": "folder"}.items():
        source = make_source(kind=kind)
        store, *_ = make_store(source, name=f"store-{kind}")
        assert export(Vault(store), source, tmp_path / kind).format == expected


@pytest.mark.parametrize("settings", KINDS)
def test_folder_by_class(make_source, make_store, tmp_path, settings):
    source = make_source()
    store, _, delta, group = make_store(source, **settings)
    export(Vault(store), source, tmp_path / "out", format="folder")
    assert tree(tmp_path / "out") == sorted(f"class{source.labels[i]}/{i:06d}.png" for i in range(50))
    for sample, image in enumerate(protected(source, delta, group)):
        found = png(tmp_path / "out" / f"class{source.labels[sample]}" / f"{sample:06d}.png")
        np.testing.assert_array_equal(found, image)


@pytest.mark.parametrize(
    ("channels", "dtype", "mode"),
    [(1, np.uint8, "L"), (1, np.uint16, "I;16"), (2, np.uint8, "LA"), (3, np.uint8, "RGB"), (4, np.uint8, "RGBA")],
)
def test_png_modes(make_source, make_store, tmp_path, channels, dtype, mode):
    source = make_source(6, shape=(channels, 6, 5), dtype=dtype, classes=0)
    store, _, delta, _ = make_store(source, shards=2)
    export(Vault(store), source, tmp_path / "out", format="folder")
    assert tree(tmp_path / "out") == [f"{i:06d}.png" for i in range(6)]
    for sample, image in enumerate(protected(source, delta, None)):
        with Image.open(tmp_path / "out" / f"{sample:06d}.png") as opened:
            assert opened.mode == mode
        found = png(tmp_path / "out" / f"{sample:06d}.png")
        np.testing.assert_array_equal(found, image[..., 0] if channels == 1 else image)


@pytest.mark.parametrize(("channels", "dtype"), [(3, np.uint16), (5, np.uint8)])
def test_what_png_cannot_hold(make_source, make_store, tmp_path, channels, dtype):
    source = make_source(6, shape=(channels, 6, 5), dtype=dtype)
    store, *_ = make_store(source, shards=2)
    with pytest.raises(UsageError, match=f"PNG cannot hold {channels} channels of {np.dtype(dtype)}"):
        export(Vault(store), source, tmp_path / "out", format="folder")


def test_the_sources_own_folders_and_names(make_source, make_store, tmp_path):
    files = ["cat/a.jpg", "cat/a.png", "cat/A.bmp", "cat/a-2.png", "dog/1.2.png", "dog/sub/x.jpeg", "dog/no_ending"]
    files += [f"dog/{i}.png" for i in range(7, 50)]
    source = make_source(kind="folder", files=files, split="train")
    test = make_source(2, kind="folder", files=["cat/t.jpg", "dog/t.jpg"], seed=3)
    store, _, delta, _ = make_store(source)
    summary = export(Vault(store), source, tmp_path / "out", other_splits={"test": test})
    expected = ["cat/a", "cat/a-2", "cat/A", "cat/a-2-2", "dog/1.2", "dog/sub/x", "dog/no_ending"]
    expected += [f"dog/{i}" for i in range(7, 50)]
    assert tree(tmp_path / "out") == sorted(
        [f"train/{name}.png" for name in expected] + ["test/cat/t.png", "test/dog/t.png"]
    )
    for name, image in zip(expected, protected(source, delta, None), strict=True):
        np.testing.assert_array_equal(png(tmp_path / "out" / "train" / f"{name}.png"), image)
    np.testing.assert_array_equal(png(tmp_path / "out" / "test/dog/t.png"), test.samples[1].transpose(1, 2, 0))
    assert summary.copied == {"test": 2}


@pytest.mark.parametrize("name", ["../../x.png", "/etc/x.png", "a/../../x.png"])
def test_no_file_outside_the_folder(make_source, make_store, tmp_path, name):
    source = make_source(kind="folder", files=[name] * 50)
    store, *_ = make_store(source)
    with pytest.raises(StoreError, match="leads out of the folder"):
        export(Vault(store), source, tmp_path / "out" / "deep")
    assert tree(tmp_path / "out") == []


def test_hostile_class_names(make_source, make_store, tmp_path):
    source = make_source(classes=6, class_names=("T-shirt/top", "..", "", "T-shirt-top", "t-SHIRT\\top", "\0"))
    store, *_ = make_store(source)
    export(Vault(store), source, tmp_path / "out", format="folder")
    folders = ["T-shirt-top", "unnamed", "unnamed-2", "T-shirt-top-2", "t-SHIRT-top-3", "-"]
    assert tree(tmp_path / "out") == sorted(f"{folders[source.labels[i]]}/{i:06d}.png" for i in range(50))


def test_nothing_leads_back(make_source, make_store, tmp_path):
    source = make_source(8)
    store, manifest, delta, _ = make_store(source, shards=2)
    secrets = [manifest.run_key.encode(), b"4711", str(tmp_path).encode(), b"pil", b"delta", b"epsilon"]
    for format in ("folder", "npz", "hdf5", "webdataset"):
        out = tmp_path / f"out-{format}"
        export(Vault(store), source, out, format=format)
        for path in out.rglob("*.*"):
            data = path.read_bytes()
            assert not [secret for secret in secrets if secret in data], path
            assert delta[0].tobytes() not in data
    for path in (tmp_path / "out-folder").rglob("*.png"):
        data, position, chunks = path.read_bytes(), 8, []
        while position < len(data):
            length, kind = struct.unpack(">I4s", data[position : position + 8])
            chunks.append(kind)
            position += 12 + length
        assert set(chunks) == {b"IHDR", b"IDAT", b"IEND"}
    with zipfile.ZipFile(next((tmp_path / "out-npz").iterdir())) as archive:
        assert [info.filename for info in archive.infolist()] == ["images.npy", "labels.npy"]
        assert all(info.date_time == (1980, 1, 1, 0, 0, 0) and not info.comment for info in archive.infolist())
        assert all(info.compress_type == zipfile.ZIP_STORED for info in archive.infolist())


def test_two_exports_at_different_times_give_the_same_bytes(make_source, make_store, tmp_path):
    source = make_source(8)
    store, *_ = make_store(source, shards=2)
    for format in ("npz", "hdf5", "folder", "webdataset"):
        export(Vault(store), source, tmp_path / "one" / format, format=format)
    time.sleep(1.1)
    for format in ("npz", "hdf5", "folder", "webdataset"):
        export(Vault(store), source, tmp_path / "two" / format, format=format)
    names = tree(tmp_path / "one")
    assert names == tree(tmp_path / "two")
    assert len(names) == 12
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


@pytest.mark.parametrize("name", ["out", "out.npz"])
def test_what_is_there_stays(make_source, make_store, tmp_path, name):
    source = make_source()
    store, *_ = make_store(source)
    out = tmp_path / name
    if name == "out":
        out.mkdir()
        (out / "file").touch()
    else:
        out.write_bytes(b"mine")
    with pytest.raises(StoreError, match=f"{name} is not empty"):
        export(Vault(store), source, out)
    assert tree(tmp_path / "out") == ["file"] if name == "out" else out.read_bytes() == b"mine"


def test_an_empty_folder_is_taken(make_source, make_store, tmp_path):
    source = make_source()
    store, *_ = make_store(source)
    (tmp_path / "out").mkdir()
    export(Vault(store), source, tmp_path / "out")
    assert tree(tmp_path / "out") == ["toys-protected.npz"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "store"]


@pytest.mark.parametrize("change", ["number", "shape", "pixel", "label"])
def test_another_source_is_refused(make_source, make_store, tmp_path, change):
    store, *_ = make_store(make_source())
    other = make_source(51 if change == "number" else 50, shape=(3, 5, 6) if change == "shape" else (3, 6, 5))
    if change == "pixel":
        other.samples[49, 2, 5, 4] ^= 1
    elif change == "label":
        other.labels[0] += 1
    with pytest.raises(StoreError, match="these are not the samples the store was made for"):
        export(Vault(store), other, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_wrong_use(make_source, make_store, tmp_path):
    source = make_source()
    store, *_ = make_store(source)
    formats = "folder, wav, webdataset, dicom, nifti, nnunet, npz, hdf5"
    with pytest.raises(UsageError, match=f"format gif is unknown: {formats}"):
        export(Vault(store), source, tmp_path / "out", format="gif")
    with pytest.raises(UsageError, match=r"out\.h5 ends like hdf5, but the format is npz"):
        export(Vault(store), source, tmp_path / "out.h5", format="npz")


@pytest.mark.parametrize("format", ["npz", "hdf5", "folder", "webdataset"])
def test_a_damaged_shard_ends_the_export_and_nothing_is_left(make_source, make_store, tmp_path, format):
    source = make_source()
    store, manifest, delta, _ = make_store(source)
    path = store / manifest.shards[3].file
    data = bytearray(path.read_bytes())
    data[data.index(delta[40].tobytes())] ^= 1
    path.write_bytes(data)
    with pytest.raises(StoreError, match=re.escape(manifest.shards[3].file)):
        export(Vault(store), source, tmp_path / "out", format=format)
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


@pytest.mark.parametrize("settings", KINDS)
def test_the_budget_is_checked_on_what_is_published(make_source, make_store, sign_again, tmp_path, settings):
    source = make_source()
    source.samples[:] = 128
    store, manifest, *_ = make_store(source, **settings)
    file = "shared.h5" if manifest.shared else manifest.shards[1].file
    with h5py.File(store / file, "r+") as opened:
        opened["delta"][0] = 9 if manifest.norm == "linf" else 100
    sign_again(store, manifest, file)
    with pytest.raises(StoreError, match=r"sample \d+ is changed by .* levels \(L.*\), .* are allowed"):
        export(Vault(store), source, tmp_path / "out")


@pytest.mark.parametrize("left", [1 << 20, 0])
@pytest.mark.parametrize("format", ["npz", "hdf5", "folder", "webdataset"])
def test_a_full_disk(make_source, make_store, small_disk, format, left):
    source = make_source(600, shape=(3, 32, 32))
    store, *_ = make_store(source)
    if not left:
        with contextlib.suppress(OSError), (small_disk / "ballast").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
    before = tree(small_disk)
    for out in (small_disk / "out", small_disk / "deep" / "out"):
        with pytest.raises(StoreError) as caught:
            export(Vault(store), source, out, format=format)
        assert str(caught.value) == (
            f"disk full while writing out (needs 2 MiB in {out.parent}): free space, then run again"
        )
        assert tree(small_disk) == before


@pytest.mark.slow
@pytest.mark.parametrize("format", ["npz", "hdf5"])
def test_memory_does_not_grow_with_the_number(make_source, make_store, tmp_path, monkeypatch, format):
    monkeypatch.setattr(fingerprint_module, "_BLOCK_BYTES", 1 << 16)
    source = make_source(4000, shape=(3, 32, 32))
    store, *_ = make_store(source, shards=8)
    tracemalloc.start()
    export(Vault(store), source, tmp_path / "out", format=format)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < source.samples.nbytes / 4
