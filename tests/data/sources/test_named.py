import gzip
import hashlib
import importlib.util
import pickle
import struct

import numpy as np
import pytest
from sklearn.datasets import load_digits

from hpcule.config.errors import DataError
from hpcule.data.opening import Opening
from hpcule.data.sources.named import NAMES, short_name


def test_digits():
    digits = load_digits()
    train, test = Opening().source("digits"), Opening().source("digits:test")
    assert Opening().splits("digits") == ("train", "test")
    assert (len(train), len(test), train.shape) == (1437, 360, (1, 8, 8))
    assert np.concatenate([train.labels, test.labels]).tolist() == digits.target.tolist()
    pixels = np.concatenate([source.read(np.arange(len(source))) for source in (train, test)])[:, 0]
    assert pixels.tolist() == [[[int(x * 255 / 16 + 0.5) for x in row] for row in image] for image in digits.images]
    assert (train.name, train.split, test.split) == ("digits", "train", "test")


def test_digits_has_no_val():
    with pytest.raises(DataError, match="digits:val has no split 'val', only train, test"):
        Opening().source("digits:val")


@pytest.mark.parametrize("name", ["medmnist:pneumonia", "medmnist:pneumoniamnist"])
def test_medmnist_is_found_in_root(tmp_path, make_images, name):
    arrays = {f"{split}_images": make_images(5, 28, 28) for split in ("train", "val", "test")}
    labels = {f"{split}_labels": np.arange(5)[:, None] % 2 for split in ("train", "val", "test")}
    np.savez_compressed(tmp_path / "pneumoniamnist.npz", **arrays, **labels)
    assert Opening().splits(name, root=tmp_path) == ("train", "val", "test")
    source = Opening().source(f"{name}:val", root=tmp_path)
    assert (source.name, source.kind, source.split) == ("pneumoniamnist", "npz", "val")
    assert np.array_equal(source.read(np.arange(5))[:, 0], arrays["val_images"])


def test_medmnist_is_found_where_its_package_keeps_it(tmp_path, make_images, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".medmnist").mkdir()
    np.savez(tmp_path / ".medmnist" / "bloodmnist.npz", train_images=make_images(5, 28, 28, 3))
    assert Opening().source("medmnist:blood", root=tmp_path / "root").shape == (3, 28, 28)


@pytest.mark.skipif(importlib.util.find_spec("medmnist") is not None, reason="medmnist is installed")
def test_medmnist_without_its_package(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(DataError, match=r'octmnist\.npz is not in .*root: .*pip install "hpcule\[medmnist\]"'):
        Opening().source("medmnist:oct", root=tmp_path / "root")


def test_a_set_with_several_labels(tmp_path, make_images):
    images, labels = make_images(5, 28, 28), np.zeros((5, 14), np.uint8)
    np.savez(tmp_path / "chestmnist.npz", train_images=images, train_labels=labels)
    source = Opening().source("medmnist:chest", root=tmp_path)
    assert source.labels is None
    assert source.label_matrix.values.shape == (5, 14)


def test_short_names():
    assert short_name("medmnist:organamnist") == "medmnist:organa"
    assert short_name("fashion-mnist") == "fashion-mnist"
    assert all(short_name(name) == name for name in NAMES)


@pytest.fixture
def no_system_fashion_mnist(monkeypatch, tmp_path):
    monkeypatch.setattr("hpcule.data.sources.named._FASHION_MNIST", tmp_path / "absent")


@pytest.mark.usefixtures("no_system_fashion_mnist")
def test_fashion_mnist_in_root(tmp_path, make_images):
    folder = tmp_path / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    images = make_images(6, 28, 28)
    with gzip.open(folder / "t10k-images-idx3-ubyte.gz", "wb") as file:
        file.write(struct.pack(">4B3I", 0, 0, 8, 3, 6, 28, 28) + images.tobytes())
    source = Opening().source("fashion-mnist:test", root=tmp_path)
    assert (source.name, source.kind) == ("fashion-mnist", "idx")
    assert np.array_equal(source.read(np.arange(6))[:, 0], images)


@pytest.mark.usefixtures("no_system_fashion_mnist")
def test_fashion_mnist_absent(tmp_path):
    with pytest.raises(DataError, match="apt-get install dataset-fashion-mnist"):
        Opening().source("fashion-mnist", root=tmp_path)


def test_fashion_mnist_of_the_system(tmp_path):
    try:
        train, test = (Opening().source(f"fashion-mnist:{split}", root=tmp_path) for split in ("train", "test"))
    except DataError as error:
        pytest.skip(str(error))
    assert (len(train), len(test), train.shape) == (60_000, 10_000, (1, 28, 28))
    assert np.bincount(train.labels).tolist() == [6000] * 10


def write_cifar(root, monkeypatch):
    """A CIFAR-10 of five samples a file, in the format of the real one, with its own check sums."""
    from hpcule.world.torchvision_compat import declare_missing_operators

    declare_missing_operators()
    from torchvision.datasets import CIFAR10

    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    rng = np.random.default_rng(0)
    planes, labels, sums = {}, {}, {}

    def put(name, content):
        (folder / name).write_bytes(pickle.dumps(content))
        sums[name] = hashlib.md5((folder / name).read_bytes()).hexdigest()

    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        planes[name], labels[name] = rng.integers(0, 256, (5, 3072), np.uint8), rng.integers(0, 10, 5).tolist()
        put(name, {"data": planes[name], "labels": labels[name]})
    put("batches.meta", {"label_names": [f"class {k}" for k in range(10)]})
    monkeypatch.setattr(CIFAR10, "train_list", [[f"data_batch_{i}", sums[f"data_batch_{i}"]] for i in range(1, 6)])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", sums["test_batch"]]])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": sums["batches.meta"]})
    train = np.concatenate([planes[f"data_batch_{i}"] for i in range(1, 6)])
    return train.reshape(25, 3, 32, 32), planes["test_batch"].reshape(5, 3, 32, 32), labels["test_batch"]


def test_cifar10_by_name_and_by_path(tmp_path, monkeypatch):
    train_images, test_images, test_labels = write_cifar(tmp_path, monkeypatch)
    train, test = Opening().source("cifar10", root=tmp_path), Opening().source(f"{tmp_path}:test")
    assert np.array_equal(train.read(np.arange(25)), train_images)
    assert np.array_equal(test.read(np.arange(5)), test_images)
    assert test.labels.tolist() == test_labels
    assert (train.name, test.name, test.split, Opening().splits(str(tmp_path))) == (
        "cifar10",
        "cifar10",
        "test",
        ("train", "test"),
    )
    assert train.class_names == test.class_names == tuple(f"class {k}" for k in range(10))


def test_cifar10_is_not_unpickled_when_altered(tmp_path, monkeypatch):
    write_cifar(tmp_path, monkeypatch)
    (tmp_path / "cifar-10-batches-py" / "data_batch_3").write_bytes(b"cos\nsystem\n(S'touch trapped'\ntR.")
    with pytest.raises(
        DataError, match=r"cifar-10-batches-py is not there or not whole; unpack cifar-10-python\.tar\.gz"
    ):
        Opening().source("cifar10", root=tmp_path)


def test_cifar10_absent(tmp_path):
    with pytest.raises(DataError, match=f"cifar-10-batches-py is not there.* into {tmp_path}"):
        Opening().source("cifar10", root=tmp_path)
