"""Collections of files that hold several images each: every frame of a file, or slice of a volume, is a sample."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from hpcule.config.errors import DataError, OpeningError
from hpcule.data.resize import resize_planes
from hpcule.data.source import Ids, Labels, LeftOut, Native, Samples, Source, narrowest
from hpcule.data.sources.layout import UnreadableError


@dataclass(frozen=True)
class Head:
    """What a file says of its frames.

    Attributes:
        frames: how many it has.
        size: their height and width.
        grey: whether they have one channel.
        label_map: the part of it that says that its values are numbers of labels, or "".
    """

    frames: int
    size: tuple[int, int]
    grey: bool
    label_map: str


H = TypeVar("H", bound=Head)


class FrameLayout(Protocol):
    """Which files a collection has; see `Nested`."""

    def folder(self, split: str) -> Path:
        """Where the files of a split are."""

    def scan(self, split: str) -> list[str]:
        """Files of a split below its folder, in the order of their ids."""

    def excluded(self, split: str) -> list[str]:
        """Files of a split that the user leaves out."""

    def ignored(self, split: str, files: list[str]) -> list[str]:
        """Files of a split of another kind."""

    def classes(self, split: str, files: list[str]) -> tuple[Labels, tuple[str, ...]] | tuple[None, None]:
        """Class numbers of files, and the names of all classes; None where there are none."""


class FrameSource(Source):
    """Frames as a viewer shows them, in 8 bits. Ids follow the order of (file, frame).

    The first folders are the classes where every file lies in one; else there are no labels. The source is called after
    its kind: names of folders may be those of patients.

    Attributes:
        files: paths of the files below `folder`, in the order of the ids.
        folder: where they are.
        frames: int64, of each file, how many it has.
        left_out: files that cannot be decoded, and those that are excluded.
        label_maps: of each file, `Head.label_map`.
    """

    levels = 255
    decodes = True
    files: list[str]
    folder: Path
    frames: npt.NDArray[np.int64]
    label_maps: list[str]

    def _take(
        self, nested: FrameLayout, split: str, image_size: int | None, read: Callable[[Path], H], skip: bool
    ) -> list[H]:
        """List the files, read their heads, and set all attributes but the name and kind; see `DicomSource`."""
        self.split, self.folder = split, nested.folder(split)
        found = nested.scan(split)
        heads: list[H] = []
        self.files, left_out = [], [LeftOut(file, "", excluded=True) for file in nested.excluded(split)]
        for file in found:
            try:
                heads.append(read(self.folder / file))
                self.files.append(file)
            except UnreadableError as error:
                if not skip:
                    raise
                left_out.append(LeftOut(file, error.reason, excluded=False))
        if not heads:
            raise DataError(f"{self.folder}: none of the {len(found)} files can be decoded")
        self.left_out, self.ignored = left_out, nested.ignored(split, found)
        self.frames = np.array([head.frames for head in heads], np.int64)
        self._sizes, self.label_maps = [head.size for head in heads], [head.label_map for head in heads]
        self._file_of = np.repeat(np.arange(len(heads)), self.frames)
        self._first = np.cumsum(self.frames) - self.frames
        height, width = _one_size(head.size for head in heads) if image_size is None else (image_size, image_size)
        self.shape = (1 if all(head.grey for head in heads) else 3, height, width)
        labels, self.class_names = nested.classes(split, self.files)
        self.labels = None if labels is None else np.repeat(narrowest(labels), self.frames)
        return heads

    @abstractmethod
    def frame(self, file: int, number: int) -> Native:
        """A frame of a file as it is stored.

        Raises:
            DataError: it cannot be read; the message names the file.
        """

    def __len__(self) -> int:
        return len(self._file_of)

    def read(self, ids: Ids) -> Samples:
        """See `Source.read`."""
        samples = np.empty((len(ids), *self.shape), np.uint8)
        for row, sample in zip(samples, ids.tolist(), strict=True):
            shown = self.native(sample).shown()
            if self.shape[1:] != shown.shape[1:]:
                shown = resize_planes(shown, self.shape[1])
            row[...] = shown  # grey fills all three channels
        return samples

    def file_name(self, sample: int) -> str | None:
        """Path of the sample's file below the folder of its split."""
        return self.files[int(self._file_of[sample])]

    def native(self, sample: int) -> Native:
        """A frame as it is stored; see `Source.native`."""
        file = int(self._file_of[sample])
        return self.frame(file, sample - int(self._first[file]))

    def native_size(self, sample: int) -> tuple[int, int]:
        """See `Source.native_size`."""
        return self._sizes[int(self._file_of[sample])]

    def of_file(self, file: int) -> Sequence[int]:
        """Ids of the frames of a file."""
        return range(int(self._first[file]), int(self._first[file] + self.frames[file]))


def _one_size(sizes: Iterable[tuple[int, int]]) -> tuple[int, int]:
    several = sorted(set(sizes))
    if len(several) > 1:
        (height, width), (other_height, other_width) = several[:2]
        seen = f"images of different sizes, as {width}x{height} and {other_width}x{other_height}"
        raise OpeningError(seen, "give all one size", "image_size", "N")
    return several[0]
