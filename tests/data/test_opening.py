import gzip
import os
import pickle
import struct
import wave

import h5py
import numpy as np
import pytest
from PIL import Image

from hpcule.config.errors import DataError, UsageError
from hpcule.data.opening import Opening
from hpcule.data.resize import Resized

COUNTS = {"train": 37, "test": 11}


def write_npz(save, shape=(7, 5, 3), dtype=np.uint8, order="C", label_shape=(-1,)):
    def write(folder, make_images):
        arrays, expected = {}, {}
        for seed, (split, count) in enumerate(COUNTS.items()):
            images, labels = make_images(count, *shape, dtype=dtype, seed=seed), np.arange(count) % 4
            arrays[f"{split}_images"] = np.asarray(images, order=order)
            arrays[f"{split}_labels"] = labels.astype(np.uint8).reshape(label_shape)
            expected[split] = images, labels
        save(folder / "set.npz", **arrays)
        return folder / "set.npz", expected

    return write


def write_hdf5(shape=(7, 5, 3), dtype=np.uint8, channels_first=False, **options):
    def write(folder, make_images):
        expected = {}
        with h5py.File(folder / "set.h5", "w") as file:
            for seed, (split, count) in enumerate(COUNTS.items()):
                images, labels = make_images(count, *shape, dtype=dtype, seed=seed), np.arange(count) % 4
                stored = images.transpose(0, 3, 1, 2) if channels_first else images
                file.create_dataset(f"{split}_images", data=stored, **options)
                file[f"{split}_labels"] = labels
                if channels_first:
                    file[f"{split}_images"].attrs["layout"] = "NCHW"
                expected[split] = images, labels
        return folder / "set.h5", expected

    return write


def write_idx(opened, ending):
    def write(folder, make_images):
        expected = {}
        for seed, (split, count) in enumerate(COUNTS.items()):
            prefix = {"train": "train", "test": "t10k"}[split]
            images, labels = make_images(count, 7, 5, seed=seed), np.arange(count) % 4
            with opened(folder / f"{prefix}-images-idx3-ubyte{ending}", "wb") as file:
                file.write(struct.pack(">4B3I", 0, 0, 8, 3, count, 7, 5) + images.tobytes())
            with opened(folder / f"{prefix}-labels-idx1-ubyte{ending}", "wb") as file:
                file.write(struct.pack(">4BI", 0, 0, 8, 1, count) + labels.astype(np.uint8).tobytes())
            expected[split] = images, labels
        return folder, expected

    return write


def write_folder(shape):
    def write(folder, make_images):
        expected = {}
        for seed, (split, count) in enumerate(COUNTS.items()):
            images, labels = make_images(count, *shape, seed=seed), np.arange(count) % 4
            for number, (image, label) in enumerate(zip(images, labels, strict=True)):
                path = folder / split / f"class {label}" / f"{number:03d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image).save(path)
            by_class = sorted(range(count), key=lambda i, labels=labels: (labels[i], i))
            expected[split] = images[by_class], labels[by_class]
        return folder, expected

    return write


CASES = {
    "npz stored": write_npz(np.savez),
    "npz deflated": write_npz(np.savez_compressed),
    "npz grey, labels [n, 1]": write_npz(np.savez, (7, 5), label_shape=(-1, 1)),
    "npz grey with a channel": write_npz(np.savez_compressed, (7, 5, 1)),
    "npz 16 bit": write_npz(np.savez, dtype=np.uint16),
    "npz big-endian": write_npz(np.savez, dtype=np.dtype(">u2")),
    "npz Fortran order": write_npz(np.savez, order="F"),
    "npz Fortran order, deflated": write_npz(np.savez_compressed, order="F"),
    "folder grey": write_folder((7, 5)),
    "folder colour": write_folder((7, 5, 3)),
    "idx": write_idx(open, ""),
    "idx gz": write_idx(gzip.open, ".gz"),
    "hdf5 contiguous": write_hdf5(),
    "hdf5 grey": write_hdf5((7, 5)),
    "hdf5 chunked": write_hdf5(chunks=(4, 7, 5, 3), compression="gzip", shuffle=True, fletcher32=True),
    "hdf5 lzf": write_hdf5(dtype=np.uint16, chunks=(4, 7, 5, 3), compression="lzf"),
    "hdf5 NCHW": write_hdf5(channels_first=True),
}
ORDERS = {
    "ascending": np.arange(11),
    "descending": np.arange(11)[::-1],
    "runs and gaps": np.array([5, 6, 7, 0, 1, 10, 3]),
    "repeated": np.array([4, 2, 4, 4, 0, 2]),
    "one": np.array([10]),
    "none": np.array([], np.int64),
}


def reference(images, ids):
    samples = [images[i][None] if images.ndim == 3 else np.stack([images[i][..., c] for c in range(images.shape[3])])
               for i in ids]  # fmt: skip
    return np.array(samples).reshape(len(ids), -1, *images.shape[1:3])


@pytest.mark.parametrize("split", COUNTS)
@pytest.mark.parametrize("case", CASES)
def test_read_equals_reference(tmp_path, make_images, case, split):
    path, expected = CASES[case](tmp_path, make_images)
    images, labels = expected[split]

    source = Opening().source(f"{path}:{split}")

    assert Opening().splits(str(path)) == ("train", "test")
    assert (source.split, len(source)) == (split, len(images))
    assert source.labels.dtype == np.int8
    assert source.labels.tolist() == labels.tolist()
    assert source.class_count == 4
    for ids in ORDERS.values():
        samples = source.read(ids)
        assert samples.dtype == source.dtype == images.dtype.newbyteorder("=")
        assert samples.flags.c_contiguous
        assert samples.flags.owndata or samples.base.flags.owndata
        assert samples.shape == (len(ids), *source.shape)
        if len(ids):
            assert np.array_equal(samples, reference(images, ids))


@pytest.mark.parametrize("case", CASES)
def test_what_was_read_is_the_callers(tmp_path, make_images, case):
    path, _ = CASES[case](tmp_path, make_images)
    source = Opening().source(str(path))
    ids = np.arange(3)
    before = source.read(ids)
    source.read(ids)[...] = 0
    assert np.array_equal(source.read(ids), before)


@pytest.mark.parametrize("case", CASES)
def test_source_survives_pickling(tmp_path, make_images, case):
    path, _ = CASES[case](tmp_path, make_images)
    source = Opening().source(str(path))
    ids = np.array([2, 0, 9])
    samples = source.read(ids)
    assert np.array_equal(pickle.loads(pickle.dumps(source)).read(ids), samples)


def test_split_is_chosen(tmp_path, make_images):
    path, expected = CASES["npz stored"](tmp_path, make_images)
    assert Opening().source(str(path)).split == "train"
    assert Opening().test(str(path), str(path)).split == "test"
    assert Opening().source(f"{path}:test").split == "test"
    assert Opening().source(f"{path}:test", "train").split == "train"
    assert len(Opening().source(str(path), "test")) == len(expected["test"][0])


def test_a_whole_path_wins_over_a_split(tmp_path, make_images):
    odd = tmp_path / "a:test"
    odd.mkdir()
    Image.fromarray(make_images(4, 4)).save(odd / "x.png")
    assert Opening().source(str(odd)).split == "all"


def test_data_without_splits(tmp_path, make_images):
    path = tmp_path / "plain.npz"
    np.savez(path, images=make_images(5, 4, 4), labels=np.arange(5))
    assert Opening().splits(str(path)) == ("all",)
    assert Opening().source(str(path)).split == "all"
    assert Opening().source(f"{path}:all").split == "all"
    with pytest.raises(DataError, match=r"plain\.npz has no splits, so no 'test'.*--test"):
        Opening().test(str(path), str(path))


def test_other_data_without_splits_are_tested_on_whole(tmp_path, make_images):
    data, test = tmp_path / "data.npz", tmp_path / "test.npz"
    for path, count in ((data, 6), (test, 4)):
        np.savez(path, images=make_images(count, 4, 4), labels=np.arange(count) % 2)
    assert len(Opening().test(str(data), str(test))) == 4
    for named in (None, str(data)):
        with pytest.raises(DataError, match=r"data\.npz has no splits, so no 'test'.*--test"):
            Opening().test(str(data), named)


def test_the_test_split_is_tested_on_whatever_split_is_trained_on(tmp_path, make_images):
    path, _ = CASES["npz stored"](tmp_path, make_images)
    assert Opening().test(f"{path}:train", None).split == "test"


def test_missing_split_names_those_there(tmp_path, make_images):
    path, _ = CASES["npz stored"](tmp_path, make_images)
    with pytest.raises(DataError, match="no split 'val', only train, test"):
        Opening().source(f"{path}:val")


def test_name_is_without_path(tmp_path, make_images, monkeypatch):
    path, _ = CASES["folder grey"](tmp_path / "cells", make_images)
    assert Opening().source(str(path)).name == "cells"
    monkeypatch.chdir(path)
    assert Opening().source(".").name == "cells"


@pytest.mark.parametrize(
    ("data", "near"),
    [
        ("digit", "digits"),
        ("digit:test", "digits"),
        ("medmnist:pneumona", "medmnist:pneumonia"),
        ("cifar-10", "cifar10"),
    ],
)
def test_unknown_name_suggests(data, near):
    with pytest.raises(UsageError, match=f"'{data}'; did you mean '{near}'.*digits, fashion-mnist, cifar10, medmnist:"):
        Opening().source(data)


def test_unknown_path_suggests_a_neighbour(tmp_path):
    (tmp_path / "pictures.npz").touch()
    with pytest.raises(UsageError, match=r"picture\.npz'; did you mean '.*pictures\.npz'"):
        Opening().source(str(tmp_path / "picture.npz"))


@pytest.mark.parametrize("name", ["a.npz", "a.h5"])
def test_pipes_and_devices_are_not_waited_for(tmp_path, name):
    os.mkfifo(tmp_path / name)
    (tmp_path / f"zero-{name}").symlink_to("/dev/zero")
    for path in (tmp_path / name, tmp_path / f"zero-{name}"):
        with pytest.raises(UsageError, match="is neither a file nor a folder"):
            Opening().source(str(path))


def test_file_of_another_kind(tmp_path):
    (tmp_path / "table.csv").write_text("1,2")
    with pytest.raises(UsageError, match=r"table\.csv is no source; valid are \.npz"):
        Opening().source(str(tmp_path / "table.csv"))


@pytest.mark.parametrize("size", [0, -3])
def test_image_size_must_be_positive(size):
    with pytest.raises(ValueError, match=f"image_size={size}: valid are 4 to 4096"):
        Opening(image_size=size)


@pytest.mark.parametrize("case", ["npz stored", "idx", "hdf5 chunked", "folder grey", "folder colour"])
def test_image_size_resizes_as_pillow_does(tmp_path, make_images, case):
    path, expected = CASES[case](tmp_path, make_images)
    images, labels = expected["test"]

    source = Opening(image_size=16).source(str(path), "test")

    assert source.shape[1:] == (16, 16)
    assert source.labels.tolist() == labels.tolist()
    ids = np.array([3, 0, 7])
    for sample, i in zip(source.read(ids), ids, strict=True):
        resized = np.asarray(Image.fromarray(images[i]).resize((16, 16), Image.Resampling.BICUBIC))
        assert np.array_equal(sample, reference(resized[None], [0])[0])


def test_image_size_keeps_what_already_fits(tmp_path, make_images):
    path, _ = write_npz(np.savez, (8, 8))(tmp_path, make_images)
    assert not isinstance(Opening(image_size=8).source(str(path)), Resized)


def test_image_size_refuses_16_bit(tmp_path, make_images):
    path, _ = CASES["npz 16 bit"](tmp_path, make_images)
    with pytest.raises(DataError, match="16-bit samples, which image_size does not resize"):
        Opening(image_size=16).source(str(path))


def test_resized_keeps_file_names(tmp_path, make_images):
    path, _ = CASES["folder grey"](tmp_path, make_images)
    source = Opening().source(str(path))
    assert Resized(source, 9).file_name(2) == source.file_name(2) == "class 0/008.png"


def test_real_medmnist(real_data):
    path = real_data("medmnist/pneumoniamnist.npz")
    with np.load(path) as arrays:
        images, labels = arrays["train_images"], arrays["train_labels"]
    source = Opening().source(str(path))
    assert Opening().splits(str(path)) == ("train", "val", "test")
    assert (source.shape, source.class_count) == ((1, 28, 28), 2)
    assert source.labels.tolist() == labels[:, 0].tolist()
    ids = np.random.default_rng(0).permutation(len(source))[:500]
    assert np.array_equal(source.read(ids), reference(images, ids))


def test_real_cifar(real_data):
    path = real_data("cifar10/cifar10_lossless_subset.npz")
    with np.load(path) as arrays:
        images = arrays["test_images"]
    source = Opening().test(str(path), str(path))
    assert (source.shape, len(source), source.class_count) == ((3, 32, 32), 1017, 10)
    ids = np.random.default_rng(0).permutation(len(source))
    assert np.array_equal(source.read(ids), reference(images, ids))


def test_real_folder(real_data):
    path = real_data("chestxray224")
    source = Opening().source(f"{path}:test")
    assert (source.shape, len(source), source.class_names) == ((3, 224, 224), 624, ("NORMAL", "PNEUMONIA"))
    assert np.bincount(source.labels).tolist() == [234, 390]
    for i in (0, 300, 623):
        with Image.open(path / "test" / source.file_name(i)) as image:
            assert np.array_equal(source.read(np.array([i])), reference(np.asarray(image)[None], [0]))


def test_nothing_is_left_in_the_temporary_folder(tmp_path, make_images, monkeypatch):
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    path, _ = CASES["npz deflated"](tmp_path, make_images)
    source = Opening().source(str(path))
    assert list((tmp_path / "tmp").iterdir()) == []
    assert len(source.read(np.arange(37))) == 37


def test_a_size_of_the_other_kind_of_samples_is_refused(tmp_path):
    with wave.open(str(tmp_path / "tone.wav"), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(200))
    for name in ("image_size", "tile_size"):
        with pytest.raises(UsageError, match=f"{name}=64: .* holds recordings; image_size"):
            Opening(**{name: 64}).source(str(tmp_path))
    with pytest.raises(UsageError, match="clip_length=64: digits holds images"):
        Opening(clip_length=64).source("digits")
