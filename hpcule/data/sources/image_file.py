"""Image files, opened so that a damaged or hostile one is an error that names it."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, ImageFile, MpoImagePlugin, UnidentifiedImageError

from hpcule.config.errors import DataError, first_line
from hpcule.data.sources.layout import UnreadableError

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
_MOST_PIXELS = 2**26
"""Largest number of pixels accepted in an image, since a file of some hundred kilobytes may unpack to that many. Four
images are decoded at the same time, each in up to three copies."""
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # Pillow's limit is above ours
_MPO_ENTRIES = 0xB002
_DENSEST_JPEG = 512
"""Pixels of a JPEG file a byte: each block of 64 takes at least one bit."""


class _WithinFile(io.BufferedReader):
    """A file of which never more is asked than there is: a read allocates first what a header claims."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))
        self.size = os.fstat(self.fileno()).st_size

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(size if size is None or size < 0 else min(size, max(self.size - self.tell(), 0)))


@contextmanager
def opened_image(folder: Path, file: str) -> Iterator[ImageFile.ImageFile]:
    """Open an image; whatever goes wrong with it inside the block is an `UnreadableError` that names the file."""
    path = folder / file
    try:
        if not path.is_file():  # a named pipe would be waited for
            raise OSError("no regular file")
        with _WithinFile(path) as within, Image.open(within, formats=_FORMATS) as image:
            if image.width * image.height > _MOST_PIXELS:
                raise Image.DecompressionBombError
            _check_extent(image, within.size)
            if (several := _images(image)) > 1:
                reason = f"{several} pages or frames, of which only the first would be read"
                raise UnreadableError(f"{path} has {reason}", reason, "save each as a file of its own")
            yield image
    except DataError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        reason = f"more than the {_MOST_PIXELS:,} pixels that are read"
        raise UnreadableError(f"{path} has {reason}", reason, "make it smaller") from None
    except Exception as error:  # Pillow's decoders raise SyntaxError, struct.error, KeyError, ... on damaged files
        known = isinstance(error, UnidentifiedImageError)
        reason = "no known image format" if known else first_line(error)
        raise UnreadableError.of(path, reason) from None


def _check_extent(image: ImageFile.ImageFile, size: int) -> None:
    """Compare the pixels that a header claims with the data of a file of `size` bytes: what lacks would be made up.

    Raises:
        ValueError: there are fewer.
    """
    ends = [tile.extents[2:] for tile in image.tile if tile.extents]
    covered = not ends or (max(x for x, _ in ends) >= image.width and max(y for _, y in ends) >= image.height)
    dense = image.format in ("JPEG", "MPO") and image.width * image.height > _DENSEST_JPEG * size
    if dense or not covered:
        raise ValueError(f"its header promises {image.width}x{image.height} pixels, which are not there")


def _images(image: ImageFile.ImageFile) -> int:
    """How many images a file holds: pages, or frames of an animation, without thumbnails that cameras add."""
    if image.format == "MPO":
        assert isinstance(image, MpoImagePlugin.MpoImageFile)
        assert image.mpinfo is not None
        kinds = [entry["Attribute"]["MPType"] for entry in image.mpinfo[_MPO_ENTRIES]]
        return sum(not kind.startswith("Large Thumbnail") for kind in kinds)
    return int(getattr(image, "n_frames", 1))
