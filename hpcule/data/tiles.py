"""Images of their own sizes, cut into tiles: nothing is resized, so whole images are published without loss."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from hpcule.config.errors import UsageError
from hpcule.data.annotations import MaskReader, Masks
from hpcule.data.source import Ids, Samples, Source
from hpcule.data.sources.layout import each


class Tiles(Source):
    """Square tiles of images, each a sample with the label of its image; ids follow images, then rows, then columns.

    Tiles do not overlap. What reaches beyond the right or the lower edge of an image mirrors it, and is not published.

    Attributes:
        images: what is cut.
    """

    levels = 255
    decodes = True

    def __init__(self, images: Source, size: int) -> None:
        """Cut `images` into tiles of `size` x `size` pixels.

        Raises:
            UsageError: the images are not files with sizes of their own.
        """
        sizes = [images.native_size(image) for image in range(len(images))]
        known = [found for found in sizes if found is not None]
        if len(known) < len(sizes):
            raise UsageError(
                f"tile_size={size}: {images.name} is no folder of images, of DICOM or of NIfTI files; leave it out"
            )
        self.name, self.kind, self.split = images.name, images.kind, images.split
        self.images, self.class_names, self.left_out = images, images.class_names, images.left_out
        self.ignored = images.ignored
        self.declared = images.declared
        self.shape = (images.shape[0], size, size)
        self._sizes = np.array(known, np.int64).reshape(-1, 2)
        counts = (-(-self._sizes // size)).prod(1)
        self._image_of = np.repeat(np.arange(len(images)), counts)
        self._first = np.concatenate([[0], np.cumsum(counts)])
        self.labels = None if images.labels is None else np.repeat(images.labels, counts)
        self.label_matrix = images.label_matrix.of(self._image_of) if images.label_matrix else None
        self.masks = _TileMasks(self, images.masks) if images.masks else None

    def __len__(self) -> int:
        return len(self._image_of)

    def read(self, ids: Ids) -> Samples:
        """See `Source.read`."""
        samples = np.empty((len(ids), *self.shape), np.uint8)
        found = list(self.by_image(ids))
        for (_, rows, wanted), tiles in zip(found, each(self._read, [image for image, *_ in found]), strict=True):
            samples[rows] = tiles[wanted]
        return samples

    def of_image(self, image: int) -> Ids:
        """Ids of an image's tiles."""
        return np.arange(self._first[image], self._first[image + 1])

    def by_image(self, ids: Ids) -> Iterator[tuple[int, npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
        """Each image that has any of these tiles, where they stand in `ids`, and which of its tiles they are."""
        owners = self._image_of[ids]
        for image in np.unique(owners).tolist():
            rows = np.flatnonzero(owners == image)
            yield image, rows, ids[rows] - self._first[image]

    def cut(self, image: Samples) -> Samples:
        """Levels [1 or C, H, W] of an image as its tiles [n, C, size, size]; grey fills all channels."""
        (channels, size, _), (height, width) = self.shape, image.shape[1:]
        rows, columns = -(-height // size), -(-width // size)
        margins = ((0, 0), (0, rows * size - height), (0, columns * size - width))
        padded = np.pad(np.broadcast_to(image, (channels, height, width)), margins, mode="symmetric")
        tiles = padded.reshape(channels, rows, size, columns, size).transpose(1, 3, 0, 2, 4)
        return tiles.reshape(rows * columns, *self.shape)

    def joined(self, image: int, tiles: npt.NDArray[np.integer]) -> npt.NDArray[np.integer]:
        """Tiles [n, C, size, size] of an image as one array [C, H, W]."""
        (channels, size, _), (height, width) = self.shape, self._sizes[image]
        rows, columns = -(-height // size), -(-width // size)
        whole = tiles.reshape(rows, columns, channels, size, size).transpose(2, 0, 3, 1, 4)
        return whole.reshape(channels, rows * size, columns * size)[:, :height, :width]

    def _read(self, image: int) -> Samples:
        native = self.images.native(image)
        assert native is not None
        return self.cut(native.shown())


class _TileMasks:
    """The masks of tiles; what mirrors an image has the mirrored classes."""

    def __init__(self, tiles: Tiles, masks: MaskReader) -> None:
        self._tiles, self._masks = tiles, masks

    @property
    def names(self) -> tuple[str, ...]:
        """See `MaskReader`."""
        return self._masks.names

    def read(self, ids: Ids) -> Masks:
        """See `MaskReader.read`."""
        masks = np.empty((len(ids), *self._tiles.shape[1:]), np.uint8)
        for image, rows, wanted in self._tiles.by_image(ids):
            masks[rows] = self._tiles.cut(self._masks.native(image)[None])[wanted, 0]
        return masks

    def native(self, sample: int) -> Masks:
        """See `MaskReader.native`."""
        mask: Masks = self.read(np.array([sample], np.int64))[0]
        return mask
