"""The contract of a source: read-only samples behind integer ids."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from hpcule.data.annotations import LabelMatrix, MaskReader
from hpcule.data.grid import Grid

Ids = npt.NDArray[np.int64]
Labels = npt.NDArray[np.int64]
StoredLabels = npt.NDArray[np.signedinteger[Any]]
"""Class numbers in a narrow type: every rank has those of all samples in memory."""
Samples = npt.NDArray[Any]
"""Images [n, C, H, W], uint8 or uint16; recordings [n, 1, 1, T], uint16 with silence at 32768; volumes of D slices
[n, C, D * H, W]."""


class Native(NamedTuple):
    """A sample at its own size.

    Attributes:
        pixels: [C, H, W].
        alpha: their transparency [H, W] where there is any.
        changes: what was changed of the file to read it so, for people.
        grid: how pixels are shown, where they are stored values of another kind than 8-bit levels.
    """

    pixels: Samples
    alpha: Samples | None = None
    changes: tuple[str, ...] = ()
    grid: Grid | None = None

    def shown(self) -> Samples:
        """The 8-bit levels of the pixels."""
        return self.pixels if self.grid is None else self.grid.shown(self.pixels)


class Recording(NamedTuple):
    """A recording as its file holds it: samples int32 [channels, t], bits a sample, samples a second, format.

    Samples are aligned left: full scale is 2^31 whatever the width, and one step of the file's grid is 2^(32 - bits).
    """

    samples: npt.NDArray[np.int32]
    bits: int
    rate: int
    format: Literal["wav", "flac"]


class LeftOut(NamedTuple):
    """A file that is no sample.

    Attributes:
        file: its path below the folder of its split.
        reason: why it cannot be decoded, or what it is instead, or "" where the user left it out.
        excluded: whether it is no sample though it can be decoded: the user left it out, or it belongs to one.
        place: where a copy has it, below the folder of its split; "" where that is its path.
    """

    file: str
    reason: str
    excluded: bool
    place: str = ""


def narrowest(labels: Labels) -> StoredLabels:
    """The same numbers, which are not negative, in the narrowest signed type that holds them.

    A signed one, because torch takes a tensor of uint8 that is an index for a mask.
    """
    return labels.astype(label_type(int(labels.max(initial=0)) + 1))


def label_type(classes: int) -> np.dtype[Any]:
    """The narrowest signed type that holds the numbers of these classes."""
    return np.min_scalar_type(-max(classes, 1))


class Source(ABC):
    """Read-only samples of one split behind the ids 0..N-1.

    Attributes:
        name: for reports, without any path ("cifar10").
        kind: what it was read from: "npz", "folder", "idx", "hdf5", "wav", "dicom" or "nifti"; the default format of an
            export.
        split: "train", "val", "test", or "all" where the data has no splits.
        shape: (C, H, W) of every sample.
        levels: the largest value of the samples' grid, 255 or 65535.
        labels: [N] in 0..K-1, or None; see `narrowest` and `classes`.
        class_names: K names, or None where there are no labels.
        label_matrix: several labels of each sample, or None.
        masks: reads a class for every pixel of samples, or None.
        rate: samples a second of recordings; None for images.
        depth: slices of volumes, which a sample [C, H, W] holds one below the other: the bytes of [C, D, H / D, W];
            None for images.
        left_out: files below the folder that are no samples.
        ignored: files below the folder that are of another kind.
        folder: where the files of the split lie; None where samples are no files.
        declared: of each file, what of a patient it says that its pixels show, such as text that is burnt into them.
        decodes: whether `read` costs much more than copying: it decodes, or resizes.
    """

    name: str
    kind: str
    split: str
    shape: tuple[int, int, int]
    levels: int
    labels: StoredLabels | None
    class_names: tuple[str, ...] | None
    label_matrix: LabelMatrix | None = None
    masks: MaskReader | None = None
    rate: int | None = None
    depth: int | None = None
    left_out: Sequence[LeftOut] = ()
    ignored: Sequence[str] = ()
    folder: Path | None = None
    declared: Sequence[tuple[str, ...]] = ()
    decodes: bool = False

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def read(self, ids: Ids) -> Samples:
        """Return the samples with these ids, in their order, as a fresh contiguous array [n, C, H, W].

        Raises:
            DataError: a sample cannot be read; the message names the file.
        """

    def classes(self, ids: Ids | slice) -> Labels:
        """The labels int64 [n] of these samples of a source that has labels."""
        assert self.labels is not None
        return self.labels[ids].astype(np.int64)

    def file_name(self, sample: int) -> str | None:
        """Relative path of the sample's file where each sample is a file ("cat/017.png"), else None."""
        return None

    def native(self, sample: int) -> Native | None:
        """The sample at its own size, where `read` resizes files; else None.

        Raises:
            DataError: it cannot be read; the message names the file.
        """
        return None

    def native_size(self, sample: int) -> tuple[int, int] | None:
        """Height and width of `native`, from what the file says without being decoded; None where there is none."""
        return None

    def recording(self, sample: int) -> Recording | None:
        """The recording as its file holds it, where `read` gives another: of several channels, of 8 or 24 bits, or not
        in a WAV file; else None.

        Raises:
            DataError: it cannot be read; the message names the file.
        """
        return None

    def lengths(self, ids: Ids) -> npt.NDArray[np.int64]:
        """Columns of each sample that are its own, int64 [n]; what follows was padded, and is not published."""
        return np.full(len(ids), self.shape[2], np.int64)

    @property
    def dtype(self) -> np.dtype[Any]:
        """uint8 for 255 levels, uint16 for 65535."""
        return np.dtype(np.uint8 if self.levels == 255 else np.uint16)

    @property
    def class_count(self) -> int:
        """K, or 0 where there are no labels."""
        return len(self.class_names) if self.class_names is not None else 0
