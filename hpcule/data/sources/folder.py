"""Folders of image files: a sub-folder a class (under train, val, test or not), a data set as it was published, or flat
and without classes; with masks, or a table of several labels, or neither.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps

from hpcule.config.errors import DataError, OpeningError
from hpcule.data.annotations import TABLE, LabelMatrix, read_label_table
from hpcule.data.resize import resize_image, to_planes
from hpcule.data.source import Ids, LeftOut, Native, Samples, Source, narrowest
from hpcule.data.sources.image_file import ENDINGS, opened_image
from hpcule.data.sources.layout import Layout, UnreadableError, each
from hpcule.data.sources.mask_files import MaskedLayout, MaskFiles, masked_layout
from hpcule.data.sources.published import published_layout

_DEEP = re.compile(r"I;16|;(16|32)[BLN]")
"""Pillow's names for samples of 16 and 32 bits; BGR;16 is another thing, three colours of few bits in two bytes."""


def folder_splits(root: Path, exclude: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Splits of a folder: those that a data set was published with, its sub-folders if they are all called train, val
    or test, else "all".

    Raises:
        DataError: see `FolderSource`.
    """
    return _layout(root, exclude).splits()


def _layout(root: Path, exclude: tuple[str, ...]) -> Layout:
    return published_layout(root, exclude) or masked_layout(root, exclude) or Layout(root, ENDINGS, "images", exclude)


class FolderSource(Source):
    """Image files of 8 bit. Ids follow the order of (class, file) names; the classes of all splits are numbered as one.

    Images are turned as their EXIF orientation says. Transparency is left out.

    Attributes:
        left_out: files that cannot be decoded, and those that are excluded.
    """

    kind = "folder"
    folder: Path
    levels = 255
    decodes = True

    def __init__(
        self,
        root: Path,
        split: str,
        *,
        image_size: int | None = None,
        skip_unreadable: bool = False,
        exclude: tuple[str, ...] = (),
    ) -> None:
        """List the files and read their headers.

        Args:
            root: the folder.
            split: one of its splits, or "all".
            image_size: resize each image to this height and width; None needs images of one size.
            skip_unreadable: decode each file once now, and leave out those that cannot be decoded.
            exclude: patterns of files that are no samples; see `is_excluded`.

        Raises:
            DataError: no images, a class without images, images next to class folders, a link that leads out of the
                folder, a damaged file, more than 8 bits, different sizes, a published data set that lacks something.
        """
        layout = _layout(root, exclude)
        self.name, self.split = layout.name, split
        self.folder = layout.folder(split)
        self._size = image_size
        files = layout.scan(split)
        heads = each(lambda file: _head(self.folder, file, skip_unreadable), files)
        readable = [(file, head) for file, head in zip(files, heads, strict=True) if isinstance(head, tuple)]
        self._files = [file for file, _ in readable]
        self._places = [layout.place(file) for file in self._files]
        unreadable = [
            LeftOut(file, head.reason, excluded=False)
            for file, head in zip(files, heads, strict=True)
            if isinstance(head, UnreadableError)
        ]
        excluded = [
            LeftOut(file, layout.noun_of(file), excluded=True, place=layout.place(file))
            for file in layout.excluded(split)
        ]
        self.left_out = [*unreadable, *excluded]
        self.ignored = layout.ignored(split, files)
        if not readable:
            raise DataError(f"{self.folder}: none of the {len(files)} images can be decoded")
        self._sizes = [(height, width) for _, (_, (width, height)) in readable]
        self._grey = all(mode == "L" for _, (mode, _) in readable)
        height, width = _one_size(self.folder, readable) if image_size is None else (image_size, image_size)
        self.shape = (1 if self._grey else 3, height, width)
        labels, self.class_names = layout.classes(self._files, split)
        self.labels = None if labels is None else narrowest(labels)
        self.label_matrix = _label_matrix(root, self.folder, split, self._files)
        if isinstance(layout, MaskedLayout):
            self.masks = MaskFiles.of(layout, split, self._files, self._sizes, image_size)

    def __len__(self) -> int:
        return len(self._files)

    def read(self, ids: Ids) -> Samples:
        """See `Source.read`."""
        samples = np.empty((len(ids), *self.shape), np.uint8)
        for row, pixels in zip(samples, each(self._decode, [self._files[sample] for sample in ids]), strict=True):
            row[...] = pixels
        return samples

    def file_name(self, sample: int) -> str | None:
        """Path of the sample's file below the folder of its split; those of a published data set are put into a folder
        for each class."""
        return self._places[sample]

    def native(self, sample: int) -> Native | None:
        """See `Source.native`."""
        if self._size is None:
            return None
        with opened_image(self.folder, self._files[sample]) as image:
            transparent = image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
            alpha = np.array(ImageOps.exif_transpose(image).convert("RGBA"))[..., 3] if transparent else None
            changes = [] if image.mode in ("L", "LA", "RGB", "RGBA") else [f"{image.mode} became RGB"]
            if image.mode in ("L", "LA") and not self._grey:
                changes.append("grey became RGB")
            if _orientation(image) != 1:
                changes.append("turned as EXIF says")
            return Native(to_planes(self._upright(image)), alpha, tuple(changes))

    def native_size(self, sample: int) -> tuple[int, int] | None:
        """See `Source.native_size`."""
        return None if self._size is None else self._sizes[sample]

    def _upright(self, image: Image.Image) -> Image.Image:
        """Convert an image to mode L or RGB and apply its EXIF orientation."""
        turned = ImageOps.exif_transpose(image)
        # One transparent colour of a palette cannot be kept in RGB; Pillow warns of it, and `native` has kept it.
        turned.info.pop("transparency", None)
        return turned.convert("L" if self._grey else "RGB")

    def _decode(self, file: str) -> Samples:
        with opened_image(self.folder, file) as image:
            converted = self._upright(image)
        pixels = to_planes(converted if self._size is None else resize_image(converted, self._size))
        if pixels.shape != self.shape:
            raise DataError(f"{self.folder / file} changed while it was in use: start again")
        return pixels


def _head(folder: Path, file: str, skip_unreadable: bool) -> tuple[str, tuple[int, int]] | UnreadableError:
    """Mode and (width, height) of a file, or, where unreadable files are to be skipped, what is wrong with it."""
    try:
        with opened_image(folder, file) as image:
            # Pillow gives 16-bit colour as mode RGB and drops the lower byte: only the raw mode shows it.
            if image.mode in ("I", "F") or _DEEP.search(" ".join([image.mode, *(str(tile[3]) for tile in image.tile)])):
                raise DataError(f"{folder / file} has more than 8 bits a channel; convert it to 8 bit")
            width, height = image.size
            head = image.mode, (height, width) if _orientation(image) > 4 else (width, height)
            if skip_unreadable:
                image.load()
            return head
    except UnreadableError as error:
        if skip_unreadable:
            return error
        raise


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8, without decoding pixels, as Pillow's own look would; TIFFs are turned by Pillow."""
    exif = Image.Exif()
    with suppress(Exception):  # foreign bytes raise what they like, and then say nothing
        exif.load(image.info["exif"])
    return int(exif.get(ExifTags.Base.Orientation, 1))


def _label_matrix(root: Path, folder: Path, split: str, files: Sequence[str]) -> LabelMatrix | None:
    """The labels of a table in the folder of the split, or else in that of all splits; None without one."""
    path = next((place / TABLE for place in (folder, root) if (place / TABLE).exists()), None)
    return None if path is None else read_label_table(path).of(files, split)


def _one_size(folder: Path, readable: Sequence[tuple[str, tuple[str, tuple[int, int]]]]) -> tuple[int, int]:
    first, (_, (width, height)) = readable[0]
    for file, (_, size) in readable:
        if size != (width, height):
            seen = f"{folder}: images of different sizes: {first} is {width}x{height}, {file} is {size[0]}x{size[1]}"
            raise OpeningError(seen, "give all one size", "image_size", "N")
    return height, width
