"""Stores and what is published from them: the data set has the bytes that an export writes, in every process."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from interface_data import PILLOW, Items, make_images
from PIL import Image
from slowly import slow_but
from torch.utils.data import DataLoader

import hpcule
from hpcule.config.errors import StoreError, UsageError

THREADS = {"world.threads": 1}


LOADING = """
import pickle
import sys

import numpy as np
from torch.utils.data import DataLoader

if __name__ == "__main__":
    with open(sys.argv[1], "rb") as file:
        dataset = pickle.load(file)
    dataset[3]  # files are open before the workers start
    loader = DataLoader(dataset, batch_size=5, num_workers=2, multiprocessing_context=sys.argv[3], collate_fn=list)
    samples = [sample for batch in loader for sample in batch]
    images, labels = [image.numpy() for image, _ in samples], [label for _, label in samples]
    np.savez(sys.argv[2], images=np.stack(images), labels=labels)
"""


def all_samples(dataset: torch.utils.data.Dataset) -> tuple[list[np.ndarray], list[int]]:
    """All images and labels through a DataLoader without workers."""
    samples = [sample for batch in DataLoader(dataset, batch_size=5, collate_fn=list) for sample in batch]
    return [image.numpy() for image, _ in samples], [label for _, label in samples]


def loaded_by_workers(dataset: torch.utils.data.Dataset, context: str, folder: Path) -> tuple[np.ndarray, list[int]]:
    """All images and labels through two workers of a DataLoader, started as `context` says.

    They are started by a process of its own: a process keeps the temporary folder in which its workers met first, and
    each test has another.
    """
    (folder / "loading.py").write_text(LOADING)
    (folder / "dataset.pickle").write_bytes(pickle.dumps(dataset))
    arguments = ["loading.py", "dataset.pickle", "loaded.npz", context]
    path = os.pathsep.join([str(Path(hpcule.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path}
    subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, check=True, timeout=240)
    with np.load(folder / "loaded.npz") as arrays:
        return arrays["images"], arrays["labels"].tolist()


def folder_of_images(root: Path, sizes: list[tuple[int, int]]) -> Path:
    """A class folder each for three classes; images of these sizes in turn, one of them grey."""
    images, labels = make_images(24, 40, 3, seed=5)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        height, width = sizes[number % len(sizes)]
        path = root / "own-sizes" / f"class{label}" / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(image[:height, :width])
        (picture.convert("L") if number == 7 else picture).save(path)
    return root / "own-sizes"


def in_order(folder: Path) -> list[np.ndarray]:
    """Images [C, H, W] of a folder of class folders, in the order of their names."""
    pixels = [np.asarray(Image.open(path)) for path in sorted(folder.rglob("*.png"))]
    return [image[None] if image.ndim == 2 else image.transpose(2, 0, 1) for image in pixels]


def of_npz(copy: Path) -> list[np.ndarray]:
    with np.load(copy) as arrays:
        return list(arrays["train_images" if "train_images" in arrays else "images"].transpose(0, 3, 1, 2))


def of_hdf5(copy: Path) -> list[np.ndarray]:
    with h5py.File(copy) as file:
        return list(file["images"][()].transpose(0, 3, 1, 2))


def hdf5_file(root: Path) -> Path:
    images, labels = make_images(40, 10, 3, seed=6)
    with h5py.File(root / "data.h5", "w") as file:
        file["images"], file["labels"] = images, labels
    return root / "data.h5"


CASES: dict[str, tuple[Callable[[Path], Path], dict[str, object], str, Callable[[Path], list[np.ndarray]]]] = {
    "hdf5": (hdf5_file, {}, "copy.h5", of_hdf5),
    "folder": (lambda root: folder_of_images(root, [(16, 16)]), {}, "copy", in_order),
    "own sizes": (lambda root: folder_of_images(root, [(16, 20), (30, 12)]), {"image_size": 16}, "copy", in_order),
    "tiles": (lambda root: folder_of_images(root, [(16, 20), (30, 12)]), {"tile_size": 8}, "copy", in_order),
}


@pytest.mark.parametrize("case", CASES)
def test_the_data_set_has_the_bytes_of_an_export(case: str, tmp_path: Path) -> None:
    make, settings, copy, read = CASES[case]
    data = make(tmp_path)
    method = {"settings": {**THREADS, **settings}, "preset": "smoke", "epochs": 1}
    store = hpcule.craft("pil", data=data, out=tmp_path / "store", **method).store
    summary = hpcule.export(store, data=data, out=tmp_path / copy)
    written = read(summary.path)
    images, labels = all_samples(store.published(data))
    assert len(images) == len(written) == summary.protected
    for image, expected in zip(images, written, strict=True):
        assert image.dtype == np.uint8
        assert np.array_equal(image, expected)
    assert labels == store.published(data).labels.tolist()


@pytest.mark.parametrize("context", slow_but(["fork"], ["fork", "spawn"]))
def test_workers_see_what_is_exported(context: str, colour_npz: Path, colour_store: Path, tmp_path: Path) -> None:
    hpcule.export(colour_store, data=colour_npz, out=tmp_path / "copy.npz")
    dataset = hpcule.open_store(colour_store).published(colour_npz)
    images, labels = loaded_by_workers(dataset, context, tmp_path)
    assert np.array_equal(images, of_npz(tmp_path / "copy.npz"))
    with np.load(colour_npz) as arrays:
        assert labels == arrays["train_labels"].tolist()


@pytest.mark.slow
def test_arrays_for_spawned_workers(
    colours: tuple[np.ndarray, np.ndarray], colour_store: Path, private_temporary_folder: Path, tmp_path: Path
) -> None:
    store = hpcule.open_store(colour_store)
    dataset = store.published(colours[0], labels=colours[1])
    expected = np.clip(colours[0].transpose(0, 3, 1, 2) + store.delta(range(70)).astype(int), 0, 255)
    images, labels = loaded_by_workers(dataset, "spawn", tmp_path)
    assert np.array_equal(images, expected)
    assert labels == colours[1].tolist()
    again = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(again[-1][0], dataset[69][0])
    del again
    assert list(private_temporary_folder.rglob("*.npz"))
    del dataset
    assert not list(private_temporary_folder.rglob("*.npz"))


def test_transforms_and_labels(colour_npz: Path, colour_store: Path) -> None:
    plain = hpcule.open_store(colour_store).published(colour_npz)
    scaled = hpcule.open_store(colour_store).published(colour_npz, transform=lambda image: image.float() / 255)
    image, label = scaled[10]
    assert torch.equal(image * 255, plain[10][0].float())
    assert label == 10 % 3
    assert plain.classes == ("0", "1", "2")
    for number in (70, -71):
        with pytest.raises(IndexError):
            plain[number]


def test_no_labels(tmp_path: Path) -> None:
    images = make_images(40, 8, 3, seed=8)[0]
    store = hpcule.craft("ar", data=images, labels=np.arange(40) % 4, out=tmp_path / "store", settings=THREADS).store
    assert store.published(images, labels=np.arange(40) % 4)[5][1] == 1
    with pytest.raises(StoreError, match="not the samples the store was made for"):
        store.published(images)


def test_other_samples_are_refused(colour_npz: Path, colour_store: Path) -> None:
    store = hpcule.open_store(colour_store)
    images, labels = make_images(70, 12, 3, seed=77)
    with pytest.raises(StoreError, match="not the samples the store was made for"):
        store.published(images, labels=labels)
    with pytest.raises(UsageError, match="labels go with arrays"):
        store.published(colour_npz, labels=labels)
    assert [problem.kind for problem in store.verify(images, labels=labels)] == ["source"]
    assert store.verify() == store.verify(colour_npz) == []


def test_deltas(colour_npz: Path, colour_store: Path) -> None:
    store = hpcule.open_store(colour_store)
    assert store.delta([4]).shape == (1, *store.manifest.sample_shape)
    assert store.delta([]).shape == (0, *store.manifest.sample_shape)
    assert np.array_equal(store.delta(np.array([9, 2, 9]))[[0, 2, 1]], store.delta([9, 9, 2]))
    assert np.array_equal(store.delta(5), store.delta(np.uint8([5])))
    for ids, message in (
        ([70], "70 is no sample"),
        ([-1], "-1 is no sample"),
        ([0.5], "float64"),
        ([[1]], "whole numbers"),
    ):
        with pytest.raises(UsageError, match=message):
            store.delta(ids)
    copied = pickle.loads(pickle.dumps(store))
    assert np.array_equal(copied.delta([1]), store.delta([1]))


def test_no_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"no store in .*: manifest\.json is not there"):
        hpcule.open_store(tmp_path)


def test_export_of_a_data_set(colours: tuple[np.ndarray, np.ndarray], colour_store: Path, tmp_path: Path) -> None:
    summary = hpcule.export(str(colour_store), data=Items(*colours, PILLOW), out=tmp_path / "copy.npz")
    assert (summary.format, summary.protected, summary.copied) == ("npz", 70, {})
    published = hpcule.open_store(colour_store).published(colours[0], labels=colours[1])
    assert np.array_equal(of_npz(tmp_path / "copy.npz"), [image for image, _ in published])
