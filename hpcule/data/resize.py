"""Samples brought to one size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from hpcule.config.errors import DataError
from hpcule.data.annotations import MaskReader, Masks
from hpcule.data.source import Ids, Samples, Source


class Resized(Source):
    """Every sample of a source at size x size pixels; ids, labels and file names pass through."""

    decodes = True

    def __init__(self, source: Source, size: int) -> None:
        """Wrap `source`.

        Raises:
            DataError: the samples have 16 bits, for which Pillow has no resampling of colour images.
        """
        if source.levels != 255:
            raise DataError(
                f"{source.name} has 16-bit samples, which image_size does not resize; "
                f"leave image_size out, or convert them to 8 bit"
            )
        self.name, self.kind, self.split = source.name, source.kind, source.split
        self.levels, self.labels, self.class_names = source.levels, source.labels, source.class_names
        self.shape, self.left_out = (source.shape[0], size, size), source.left_out
        self.ignored = source.ignored
        self.declared = source.declared
        self.label_matrix = source.label_matrix
        self.masks = _ResizedMasks(source.masks, size) if source.masks else None
        self.source, self.folder = source, source.folder

    def __len__(self) -> int:
        return len(self.source)

    def read(self, ids: Ids) -> Samples:
        """See `Source.read`."""
        resized = np.empty((len(ids), *self.shape), np.uint8)
        for row, sample in zip(resized, self.source.read(ids), strict=True):
            row[...] = resize_planes(sample, self.shape[1])
        return resized

    def file_name(self, sample: int) -> str | None:
        """See `Source.file_name`."""
        return self.source.file_name(sample)


@dataclass(frozen=True)
class _ResizedMasks:
    masks: MaskReader
    size: int

    @property
    def names(self) -> tuple[str, ...]:
        """See `MaskReader`."""
        return self.masks.names

    def read(self, ids: Ids) -> Masks:
        """See `MaskReader.read`."""
        return np.stack([resize_mask(mask, self.size) for mask in self.masks.read(ids)])

    def native(self, sample: int) -> Masks:
        """See `MaskReader.native`."""
        return self.masks.native(sample)


def resize_image(image: Image.Image, size: int) -> Image.Image:
    """Bicubic; Pillow widens the kernel when it makes an image smaller, so there is no aliasing."""
    return image.resize((size, size), Image.Resampling.BICUBIC)


def resize_planes(sample: Samples, size: int) -> Samples:
    """uint8 [C, H, W] of one or three channels at size x size pixels, as `resize_image` has them."""
    grey = sample.shape[0] == 1
    image = Image.fromarray(sample[0] if grey else np.ascontiguousarray(sample.transpose(1, 2, 0)))
    return to_planes(resize_image(image, size))


def resize_mask(mask: Masks, size: int) -> Masks:
    """Class numbers [H, W] at size x size pixels, each that of the nearest pixel."""
    return np.array(Image.fromarray(mask).resize((size, size), Image.Resampling.NEAREST))


def to_planes(image: Image.Image) -> Samples:
    """uint8 [C, H, W] of an image in mode L or RGB."""
    pixels: Samples = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
