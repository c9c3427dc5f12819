"""Folders in which every image has a mask: `images/NAME` and `masks/NAME`, with endings of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from hpcule.config.errors import DataError, one_line
from hpcule.data.annotations import TABLE, VOID, MaskNumbers, Masks
from hpcule.data.resize import resize_mask
from hpcule.data.sources.image_file import ENDINGS, opened_image
from hpcule.data.sources.layout import Layout, each

IMAGES, MASKS = "images", "masks"
MASK = "a mask"
"""What files below `masks` are."""
CLASSES = "classes.txt"
"""File with the number and the name of each class of pixels, a line each."""
_MODES = ("L", "P", "1")
_MOST_BYTES = 1 << 16


class MaskedLayout(Layout):
    """Images below `images` and masks below `masks`, in the folder of each split; classes are folders in both."""

    below = f"{IMAGES}/"
    described = (TABLE, CLASSES)

    @property
    def classes_file(self) -> Path:
        """The file with the names of the classes, which need not be there."""
        return self.root / CLASSES

    @property
    def endings_of_masks(self) -> tuple[str, ...]:
        """Endings of masks: those of files without loss."""
        return tuple(ending for ending in ENDINGS if ending not in (".jpg", ".jpeg"))

    def masks(self, split: str) -> dict[str, str]:
        """The masks of a split by the path of their image without its ending, both below their own folders.

        Raises:
            DataError: two masks of one image.
        """
        folder = self.folder(split) / MASKS
        masks = Layout(self.root, self.endings_of_masks, MASKS, self.exclude)
        classes, files = masks.listed(folder)
        files += [f"{name}/{file}" for name in classes for file in masks.listed(folder / name)[1]]
        found: dict[str, str] = {}
        for file in files:
            if (other := found.setdefault(stem_of(file), file)) != file:
                raise DataError(f"{folder}: {other} and {file} are masks of one image; leave one")
        return found

    def excluded(self, split: str) -> list[str]:
        """See `Layout.excluded`; masks are no samples either."""
        return [*super().excluded(split), *(f"{MASKS}/{file}" for file in self.masks(split).values())]

    def noun_of(self, excluded: str) -> str:
        """See `Layout.noun_of`."""
        return MASK if excluded.startswith(f"{MASKS}/") else ""


def masked_layout(root: Path, exclude: tuple[str, ...]) -> MaskedLayout | None:
    """The layout of a folder in which all images have masks; None for other folders."""
    layout = MaskedLayout(root, ENDINGS, "images", exclude)
    folders = [layout.folder(split) for split in layout.splits()]
    return layout if all((folder / IMAGES).is_dir() and (folder / MASKS).is_dir() for folder in folders) else None


@dataclass(frozen=True)
class MaskFiles:
    """The masks of a split.

    Attributes:
        layout: of the collection.
        folder: where the masks lie.
        files: of each sample, in the order of ids.
        size: pixels of the height and the width that masks are brought to; None: as they are.
    """

    layout: MaskedLayout
    folder: Path
    files: Sequence[str]
    size: int | None

    @classmethod
    def of(
        cls,
        layout: MaskedLayout,
        split: str,
        images: Sequence[str],
        sizes: Sequence[tuple[int, int]],
        size: int | None,
    ) -> MaskFiles:
        """The masks of images.

        Args:
            layout: of the collection.
            split: of the images.
            images: their paths below the folder of their split.
            sizes: (height, width) of each.
            size: see the attribute.

        Raises:
            DataError: an image without a mask, a mask of another size or in colours.
        """
        folder, known = layout.folder(split) / MASKS, layout.masks(split)
        files = []
        for image in images:
            if (file := known.get(stem_of(image.removeprefix(layout.below)))) is None:
                raise DataError(
                    f"{layout.folder(split) / image} has no mask {folder / stem_of(image.removeprefix(layout.below))}"
                    f"{layout.endings_of_masks[0]}; add it, or leave the image out with exclude"
                )
            files.append(file)
        for file, image, expected, seen in zip(
            files, images, sizes, each(lambda file: _mask_size(folder, file), files), strict=True
        ):
            if seen != expected:
                raise DataError(
                    f"{folder / file} has {seen[1]}x{seen[0]} pixels, and its image {image} has "
                    f"{expected[1]}x{expected[0]}; give both one size"
                )
        return cls(layout, folder, files, size)

    @property
    def names(self) -> tuple[str, ...]:
        """See `MaskReader`."""
        return self._numbers.names

    def read(self, ids: npt.NDArray[np.int64]) -> Masks:
        """See `MaskReader.read`."""
        masks = each(self._read, [self.files[sample] for sample in ids])
        return np.stack(masks if self.size is None else [resize_mask(mask, self.size) for mask in masks])

    def native(self, sample: int) -> Masks:
        """See `MaskReader.native`."""
        return self._read(self.files[sample])

    @property
    def list(self) -> Path:
        """The file with the names of the classes, which need not be there."""
        return self.layout.classes_file

    @cached_property
    def _numbers(self) -> MaskNumbers:
        if self.list.exists():
            return MaskNumbers.named(listed_classes(self.list))
        seen: set[int] = set()
        for split in self.layout.splits():
            folder = self.layout.folder(split) / MASKS
            for values in each(partial(_values, folder), [*self.layout.masks(split).values()]):
                seen.update(np.unique(values).tolist())
        return MaskNumbers.found([*seen], str(self.folder), f", or {self.list} with a number and a name a line")

    def _read(self, file: str) -> Masks:
        return self._numbers.of(_values(self.folder, file), str(self.folder / file))


def class_list(classes: Mapping[int, str]) -> bytes:
    """The file that `listed_classes` reads."""
    return "".join(f"{number} {name}\n" for number, name in classes.items()).encode()


def listed_classes(path: Path) -> Mapping[int, str]:
    """Names of classes by the number that masks hold.

    Raises:
        DataError: the file is no such list.
    """
    try:
        if not path.is_file() or path.stat().st_size > _MOST_BYTES:
            raise ValueError("no file of a list's size")
        lines = [line.split(maxsplit=1) for line in path.read_text("utf-8-sig").splitlines() if line.strip()]
        classes = {int(number): one_line(name.strip()) for number, name in lines}
        if len(classes) < len(lines) or len(set(classes.values())) < len(lines):
            raise ValueError("a number or a name is there twice")
        if len(classes) < 2 or not all(0 <= number <= VOID for number in classes):
            raise ValueError("it needs two numbers or more, from 0 to 255")
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: no list of classes ({error}); valid is a number and a name a line") from None
    return classes


def _mask_size(folder: Path, file: str) -> tuple[int, int]:
    with opened_image(folder, file) as image:
        if image.mode not in _MODES:
            raise DataError(
                f"{folder / file} is of mode {image.mode}; a mask holds class numbers in 8 bits, grey or of a palette"
            )
        return image.height, image.width


def _values(folder: Path, file: str) -> npt.NDArray[np.uint8]:
    with opened_image(folder, file) as image:
        return np.array(image, np.uint8)


def stem_of(file: str) -> str:
    """The path of an image or a volume without its ending."""
    name = file[:-3] if file.lower().endswith(".nii.gz") else file
    return PurePosixPath(name).with_suffix("").as_posix()
