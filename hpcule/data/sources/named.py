"""Data sets that have a name: `digits`, `fashion-mnist`, `cifar10`, `medmnist:NAME`."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from hpcule.config.errors import DataError
from hpcule.data.source import Source
from hpcule.data.sources.array import ArraySource
from hpcule.data.sources.idx import idx_splits, open_idx
from hpcule.data.sources.npz import npz_splits, open_npz

MEDMNIST = {
    "path": "PathMNIST",
    "chest": "ChestMNIST",
    "derma": "DermaMNIST",
    "oct": "OCTMNIST",
    "pneumonia": "PneumoniaMNIST",
    "retina": "RetinaMNIST",
    "breast": "BreastMNIST",
    "blood": "BloodMNIST",
    "tissue": "TissueMNIST",
    "organa": "OrganAMNIST",
    "organc": "OrganCMNIST",
    "organs": "OrganSMNIST",
}
"""The sets of images (not volumes) of MedMNIST, with their class in its package."""
NAMES = ("digits", "fashion-mnist", "cifar10", *(f"medmnist:{short}" for short in MEDMNIST))
CIFAR10_FOLDER = "cifar-10-batches-py"

_DIGITS_TEST = 360
_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist puts it."""


def short_name(name: str) -> str:
    """The name as in `NAMES` (`medmnist:pneumoniamnist` is `medmnist:pneumonia`); other text unchanged."""
    return name.removesuffix("mnist") if name.startswith("medmnist:") else name


def named_splits(name: str, root: Path) -> tuple[str, ...]:
    """Splits of a named set.

    Args:
        name: one of `NAMES`.
        root: where sets are kept that are not part of a package.

    Raises:
        DataError: the set is not on this machine.
    """
    if name.startswith("medmnist:"):
        return npz_splits(_medmnist(name, root))
    return ("train", "test")


def open_named(name: str, root: Path, split: str) -> Source:
    """Open a split of a named set.

    Raises:
        DataError: the set is not on this machine and cannot be fetched; the message says where it belongs.
    """
    if name == "digits":
        return _digits(split)
    if name == "fashion-mnist":
        return _fashion_mnist(split, root)
    if name == "cifar10":
        return open_cifar10(root, split)
    path = _medmnist(name, root)
    return open_npz(path, split, path.stem)


def open_cifar10(root: Path, split: str) -> Source:
    """CIFAR-10 from its own Python files in `root`/cifar-10-batches-py, whose MD5 sums torchvision checks.

    Raises:
        DataError: the files are absent or altered.
    """
    from hpcule.world.torchvision_compat import declare_missing_operators

    declare_missing_operators()
    from torchvision.datasets import CIFAR10

    try:
        files = CIFAR10(str(root), train=split == "train", download=False)
    except (RuntimeError, OSError):
        raise DataError(
            f"{root / CIFAR10_FOLDER} is not there or not whole; unpack cifar-10-python.tar.gz of "
            f"https://www.cs.toronto.edu/~kriz/cifar.html into {root}"
        ) from None
    labels, classes = np.array(files.targets), tuple(files.classes)
    where = str(root / CIFAR10_FOLDER)
    return ArraySource(files.data, labels, name="cifar10", kind="npz", split=split, where=where, class_names=classes)


def _digits(split: str) -> Source:
    """scikit-learn's 1,797 digits of 8x8 pixels, whose grid 0..16 is spread over 0..255."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    part = slice(-_DIGITS_TEST) if split == "train" else slice(-_DIGITS_TEST, None)
    return ArraySource(images[part], digits.target[part], name="digits", kind="npz", split=split, where="digits")


def _fashion_mnist(split: str, root: Path) -> Source:
    ours = root / "FashionMNIST" / "raw"
    for folder in (_FASHION_MNIST, ours):
        if split in idx_splits(folder):
            return open_idx(folder, split, "fashion-mnist")
    raise DataError(
        f"fashion-mnist is not on this machine: apt-get install dataset-fashion-mnist, "
        f"or put its four IDX files into {ours}"
    )


def _medmnist(name: str, root: Path) -> Path:
    """The npz file of a set of MedMNIST, fetched by its package if need be."""
    short = name.removeprefix("medmnist:")
    file = f"{short}mnist.npz"
    for path in (root / file, Path.home() / ".medmnist" / file):
        if path.is_file():
            return path
    _fetch(MEDMNIST[short], root / file)
    return root / file


def _fetch(class_name: str, target: Path) -> None:
    from hpcule.world.torchvision_compat import declare_missing_operators

    declare_missing_operators()  # the package downloads through torchvision
    try:
        import medmnist

        package = getattr(medmnist, class_name)
    except (ImportError, AttributeError):  # it prints its own failed imports and goes on without its classes
        raise DataError(
            f"{target.name} is not in {target.parent}: put it there, or install what fetches it: "
            f'pip install "hpcule[medmnist]"'
        ) from None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # Several processes may fetch the same file: each one whole, and the last rename wins.
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            package(split="train", download=True, root=folder, mmap_mode="r")
            Path(folder, target.name).replace(target)
    except (RuntimeError, OSError):
        raise DataError(f"{target.name} could not be downloaded: put it into {target.parent}") from None
