"""Small copies of data sets of image files, in the layouts in which the real ones are published."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

PETS = {"Abyssinian": 1, "american_bulldog": 2, "Bengal": 6}
"""Breeds, as files are called, with their published numbers."""


def write_image(path: Path, seed: int) -> None:
    """A photograph of a size of its own."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(40, 216, (5, 6, 3), dtype=np.uint8))
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse.resize((24 + seed % 7, 20 + seed % 5), Image.Resampling.BICUBIC).save(path, quality=95)


def write_pets(root: Path) -> dict[str, list[str]]:
    """Three breeds with three images each for training and two for testing, and files that are no samples.

    Returns:
        By split: where a copy has the images, in the order of their ids, without endings.
    """
    places: dict[str, list[str]] = {"train": [], "test": []}
    rows: dict[str, list[str]] = {"train": [], "test": []}
    for breed, number in PETS.items():
        for image in (1, 10, 2, 30, 4):
            split, name = "test" if image in (30, 4) else "train", f"{breed}_{image}"
            write_image(root / "images" / f"{name}.jpg", 10 * number + image)
            rows[split].append(f"{name} {number} {2 - breed[0].isupper()} 1\n")
            places[split].append(f"{breed.title()}/{name}")
    (root / "annotations" / "trimaps").mkdir(parents=True)
    (root / "annotations" / "trainval.txt").write_text("".join(rows["train"]))
    (root / "annotations" / "test.txt").write_text("".join(rows["test"]))
    Image.new("L", (24, 20), 2).save(root / "annotations" / "trimaps" / "Abyssinian_1.png")
    write_image(root / "images" / "Bengal_99.jpg", 99)  # as some of the real ones, in no list
    return {split: sorted(names, key=lambda name: f"{name}.jpg") for split, names in places.items()}


def write_flowers(root: Path, digits: int, parts: dict[str, list[int]], labels: dict[int, str]) -> dict[str, list[str]]:
    """See `write_flowers_17`."""
    for images in parts.values():
        for k in images:
            write_image(root / "jpg" / f"image_{k:0{digits}d}.jpg", k)
    return {split: sorted(f"{labels[k]}/image_{k:0{digits}d}" for k in images) for split, images in parts.items()}


def write_flowers_17(root: Path) -> dict[str, list[str]]:
    """Classes 1, 2 and 17 in the first partition; see `write_pets` for what is returned."""
    parts = {"train": [80, 1, 81, 1360, 1281], "val": [2, 82, 1282], "test": [3, 160, 1283, 1284]}
    labels = {k: f"{(k + 79) // 80:02d}" for images in parts.values() for k in images}
    places = write_flowers(root, 4, parts, labels)
    others = {f"{split}{k}": [4, 5, 6] for split in ("trn", "val", "tst") for k in (2, 3)}
    first = {"trn1": parts["train"], "val1": parts["val"], "tst1": parts["test"]}
    savemat(root / "datasplits.mat", {**others, **first}, do_compression=True)
    return places


def write_flowers_102(root: Path) -> dict[str, list[str]]:
    """Four classes, images with labels in no order; see `write_pets` for what is returned."""
    numbers = np.array([77, 102, 1, 5, 77, 102, 1, 5, 77, 102, 1, 5], np.uint8)
    parts = {"train": [4, 1, 3, 2], "val": [6, 5, 8, 7], "test": [9, 12, 11]}
    places = write_flowers(root, 5, parts, {k: f"{number:03d}" for k, number in enumerate(numbers, 1)})
    write_image(root / "jpg" / "image_00010.jpg", 10)
    sets = {"trnid": parts["train"], "valid": parts["val"], "tstid": parts["test"]}
    savemat(root / "setid.mat", {name: np.array(k, np.uint16) for name, k in sets.items()}, do_compression=True)
    savemat(root / "imagelabels.mat", {"labels": numbers})
    return places


WRITERS = {
    "oxford-pets": ("oxford-iiit-pet", write_pets),
    "flowers-17": ("flowers-17", write_flowers_17),
    "flowers-102": ("flowers-102", write_flowers_102),
}
"""By name: the folder below that of all named sets, and what writes it."""
