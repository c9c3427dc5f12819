"""Data sets of image files in the folders they were published in: all images in one, and lists next to it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from hpcule.config.errors import DataError, first_line
from hpcule.data.source import Labels
from hpcule.data.sources.array import SPLITS
from hpcule.data.sources.layout import Layout, is_excluded
from hpcule.data.sources.matlab import read_lists

_MOST_BYTES = 2**20
"""Largest size of a list that is read; the published ones have about a tenth."""
_PET = re.compile(r"([A-Za-z_]+)_[0-9]+")
_FLOWERS_A_CLASS = 80
"""Images of each class of Flowers-17, which are numbered class by class."""

Listed = dict[str, dict[str, str]]
"""The images of each split: names of files, and their classes."""


@dataclass(frozen=True)
class ImageSet:
    """A data set as it was published.

    Attributes:
        name: by which users know it.
        folder: where it lies below the folder of all named sets.
        images: its sub-folder of images.
        lists: files that say which image is of which split and class.
        remedy: what to unpack from where.
        read: reads the lists of a folder.
    """

    name: str
    folder: str
    images: str
    lists: tuple[str, ...]
    remedy: str
    read: Callable[[Path], Listed]

    def is_in(self, root: Path) -> bool:
        """Whether a folder holds the images and at least one of the lists."""
        try:
            return (root / self.images).is_dir() and any((root / name).is_file() for name in self.lists)
        except OSError:  # it may not be looked into
            return False

    def require(self, root: Path) -> None:
        """Look whether the lists and the folder of images are there.

        Raises:
            DataError: one is not; the message says how to get it.
        """
        for name in (*self.lists, self.images):
            if not (root / name).exists():
                raise self.lacks(root / name, root)

    def lacks(self, path: Path, root: Path) -> DataError:
        """An error that says what is not there, and how to get it."""
        return DataError(f"{path} is missing; {self.name} is complete after you {self.remedy.format(root=root)}")

    def layout(self, root: Path, exclude: tuple[str, ...]) -> ListedLayout:
        """Read the lists.

        Raises:
            DataError: one is absent or damaged, or an image is listed twice.
        """
        self.require(root)
        listed = self.read(root)
        counts = Counter(file for files in listed.values() for file in files)
        if twice := [file for file, count in counts.items() if count > 1]:
            raise DataError(f"{root}: {twice[0]} is in more than one split; fetch {', '.join(self.lists)} again")
        return ListedLayout(root, (".jpg",), "images", exclude, published=self, listed_images=listed)


@dataclass(frozen=True, kw_only=True)
class ListedLayout(Layout):
    """Images whose splits and classes are listed. A copy has a folder for each split and class instead of lists.

    Attributes:
        published: the data set.
        listed_images: its images.
    """

    published: ImageSet
    listed_images: Listed

    @property
    def name(self) -> str:
        """See `Layout.name`."""
        return self.published.name

    def splits(self) -> tuple[str, ...]:
        """The splits that are listed."""
        return tuple(split for split in SPLITS if split in self.listed_images)

    def folder(self, split: str) -> Path:
        """See `Layout.folder`: one for all splits."""
        return self.root

    def scan(self, split: str) -> list[str]:
        """See `Layout.scan`.

        Raises:
            DataError: an image is missing, or a link leads out of the folder.
        """
        files = [file for file in self._files(split) if not self._is_excluded(file)]
        self.listed(self.root)  # refuses links
        there = set(self.listed(self.root / self.published.images)[1])
        if absent := [file for file in files if PurePosixPath(file).name not in there]:
            raise self.published.lacks(self.root / absent[0], self.root)
        if not files:
            raise DataError(f"{self.root} holds no images of the split {split} besides those that are excluded")
        return files

    def place(self, file: str) -> str:
        """See `Layout.place`: in a folder of its class."""
        return f"{self._class(file)}/{PurePosixPath(file).name}"

    def excluded(self, split: str) -> list[str]:
        """See `Layout.excluded`."""
        return [file for file in self._files(split) if self._is_excluded(file)]

    def ignored(self, split: str, files: Sequence[str]) -> list[str]:
        """Files that no list names, all of them for the first split."""
        if split != self.splits()[0]:
            return []
        return super().ignored(split, [file for one in self.splits() for file in self._files(one)])

    def classes(self, files: Sequence[str], split: str) -> tuple[Labels, tuple[str, ...]]:
        """See `Layout.classes`."""
        names = tuple(sorted({name for images in self.listed_images.values() for name in images.values()}))
        number = {name: k for k, name in enumerate(names)}
        return np.array([number[self._class(file)] for file in files], np.int64), names

    def _files(self, split: str) -> list[str]:
        images = self.listed_images[split]
        return [f"{self.published.images}/{name}" for name in sorted(images, key=lambda name: (images[name], name))]

    def _class(self, file: str) -> str:
        name = PurePosixPath(file).name
        return next(images[name] for images in self.listed_images.values() if name in images)

    def _is_excluded(self, file: str) -> bool:
        return is_excluded(self.root / file, self.root, self.exclude)


def published_layout(root: Path, exclude: tuple[str, ...]) -> ListedLayout | None:
    """The layout of the data set that a folder holds as it was published; None for other folders.

    Raises:
        DataError: see `ImageSet.layout`.
    """
    return next((one.layout(root, exclude) for one in IMAGE_SETS.values() if one.is_in(root)), None)


def _pets(root: Path) -> Listed:
    """The lists of Oxford-IIIT Pets: NAME CLASS SPECIES BREED a line; names begin with the breed.

    Breeds are written as titles, in whose order the published classes are numbered.
    """
    return {
        split: dict(_pet(root / "annotations" / file, line) for line in _lines(root / "annotations" / file))
        for split, file in (("train", "trainval.txt"), ("test", "test.txt"))
    }


def _pet(path: Path, line: str) -> tuple[str, str]:
    name = line.split()[0]
    match = _PET.fullmatch(name)
    if match is None:
        raise DataError(f"{path} names the image {name!r}; valid is BREED_NUMBER, as in the published list")
    return f"{name}.jpg", match[1].title()


def _lines(path: Path) -> list[str]:
    try:
        if not path.is_file():
            raise OSError("no regular file")
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise ValueError(f"more than {_MOST_BYTES:,} bytes")
        lines = data.decode("ascii").splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as a list of images ({first_line(error)}): fetch it again") from None
    return [line for line in lines if line.strip() and not line.startswith("#")]


def _flowers_17(root: Path) -> Listed:
    """The first of the three partitions of Flowers-17 into splits."""
    return {
        split: {f"image_{k:04d}.jpg": f"{(k - 1) // _FLOWERS_A_CLASS + 1:02d}" for k in images.tolist()}
        for split, images in zip(SPLITS, read_lists(root / "datasplits.mat", ["trn1", "val1", "tst1"]), strict=True)
    }


def _flowers_102(root: Path) -> Listed:
    """Flowers-102 with the splits by their published names: 10 images of each class for training and for validation."""
    (labels,) = read_lists(root / "imagelabels.mat", ["labels"])
    parts = read_lists(root / "setid.mat", ["trnid", "valid", "tstid"])
    if (last := max(part.max() for part in parts)) > len(labels):
        raise DataError(
            f"{root / 'setid.mat'} names image {last}, of {len(labels)} in imagelabels.mat; fetch both again"
        )
    return {
        split: {f"image_{k:05d}.jpg": f"{labels[k - 1]:03d}" for k in part.tolist()}
        for split, part in zip(SPLITS, parts, strict=True)
    }


_VGG = "https://www.robots.ox.ac.uk/~vgg/data"
IMAGE_SETS = {
    one.name: one
    for one in (
        ImageSet(
            "oxford-pets",
            "oxford-iiit-pet",
            "images",
            ("annotations/trainval.txt", "annotations/test.txt"),
            f"unpack images.tar.gz and annotations.tar.gz of {_VGG}/pets/ into {{root}}",
            _pets,
        ),
        ImageSet(
            "flowers-17",
            "flowers-17",
            "jpg",
            ("datasplits.mat",),
            f"unpack 17flowers.tgz of {_VGG}/flowers/17/ into {{root}} and add datasplits.mat",
            _flowers_17,
        ),
        ImageSet(
            "flowers-102",
            "flowers-102",
            "jpg",
            ("setid.mat", "imagelabels.mat"),
            f"unpack 102flowers.tgz of {_VGG}/flowers/102/ into {{root}} and add setid.mat and imagelabels.mat",
            _flowers_102,
        ),
    )
}
"""The data sets by name. The folders of Pets and Flowers-102 are called as torchvision calls them."""
