"""Collections of 2, 3, 10 and 37 classes with as many samples each, to see what the number of classes does to a method.

    python bench/class_counts.py OUT DATA ...

The classes of all DATA are numbered one after the other: with CIFAR-10, Fashion-MNIST, digits, BreastMNIST,
PneumoniaMNIST and busi256 there are 37. OUT gets classes-K.npz with the first K: colour images of 64 x 64, 2,000
to train on and 1,000 to test on, the same number of each class but for a remainder.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from hpcule.data.opening import Opening
from hpcule.data.source import Source

COUNTS = (2, 3, 10, 37)
SAMPLES = {"train": 2000, "test": 1000}
SIZE = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT", nargs="?")
    parser.add_argument("data", metavar="DATA", nargs="*")
    options = parser.parse_args()
    if not options.data:  # as `make bench` calls every program
        parser.print_help()
        return
    options.out.mkdir(parents=True, exist_ok=True)
    for count in COUNTS:
        train, test = (balanced(options.data, split, count) for split in SAMPLES)
        np.savez(
            options.out / f"classes-{count}.npz",
            train_images=train[0],
            train_labels=train[1],
            test_images=test[0],
            test_labels=test[1],
        )


def balanced(data: Sequence[str], split: str, count: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Images [n, H, W, 3] and labels [n] of the first classes, nearly as many of each."""
    sources = [Opening().source(f"{name}:{split}") for name in data]
    wanted = np.bincount(np.arange(SAMPLES[split]) % count)
    images = [list(islice(of_class(sources, label), wanted[label])) for label in range(count)]
    if any(len(part) < size for part, size in zip(images, wanted, strict=True)):
        raise SystemExit(f"a class of the {split} samples has fewer than {SAMPLES[split] // count}")
    return np.stack([image for part in images for image in part]), np.repeat(np.arange(count), wanted)


def of_class(sources: Sequence[Source], label: int) -> Iterator[npt.NDArray[np.uint8]]:
    """The images of a class that is counted through all sources, at one size and in colour."""
    for source in sources:
        if label < source.class_count:
            break
        label -= source.class_count
    else:
        raise SystemExit("the data have fewer classes")
    assert source.labels is not None
    for number in np.flatnonzero(np.asarray(source.labels) == label):
        (sample,) = source.read(np.array([number]))
        image = Image.fromarray(np.moveaxis(sample, 0, -1).squeeze().astype(np.uint8)).convert("RGB")
        yield np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BICUBIC))


if __name__ == "__main__":
    main()
