"""Some samples of a source, as a source."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hpcule.config.errors import UsageError
from hpcule.data.annotations import ChosenMasks
from hpcule.data.source import Ids, Native, Recording, Samples, Source
from hpcule.data.tiles import Tiles


class Subset(Source):
    """`count` samples of a source, spread evenly over it so that sorted classes are all there; classes keep their
    numbers."""

    def __init__(self, source: Source, count: int) -> None:
        """Wrap `source`.

        Raises:
            UsageError: it has fewer samples, or none are asked for.
        """
        if not 1 <= count <= len(source):
            raise UsageError(f"{count} samples of {source.name}: valid are 1 to {len(source)}")
        self.name, self.kind, self.split = source.name, source.kind, source.split
        self.shape, self.levels, self.class_names = source.shape, source.levels, source.class_names
        self.rate, self.decodes, self.left_out = source.rate, source.decodes, source.left_out
        self.ignored, self.depth = source.ignored, source.depth
        self.declared = source.declared
        self.folder = source.folder
        self._ids = np.arange(count, dtype=np.int64) * len(source) // count
        self.labels = source.labels[self._ids] if source.labels is not None else None
        self.label_matrix = source.label_matrix.of(self._ids) if source.label_matrix else None
        self.masks = ChosenMasks(source.masks, self._ids) if source.masks else None
        self.source = source

    def __len__(self) -> int:
        return len(self._ids)

    def read(self, ids: Ids) -> Samples:
        """See `Source.read`."""
        return self.source.read(self._ids[ids])

    def lengths(self, ids: Ids) -> npt.NDArray[np.int64]:
        """See `Source.lengths`."""
        return self.source.lengths(self._ids[ids])

    def file_name(self, sample: int) -> str | None:
        """See `Source.file_name`."""
        return self.source.file_name(int(self._ids[sample]))

    def native(self, sample: int) -> Native | None:
        """See `Source.native`."""
        return self.source.native(int(self._ids[sample]))

    def native_size(self, sample: int) -> tuple[int, int] | None:
        """See `Source.native_size`."""
        return self.source.native_size(int(self._ids[sample]))

    def recording(self, sample: int) -> Recording | None:
        """See `Source.recording`."""
        return self.source.recording(int(self._ids[sample]))


def at_most(source: Source, samples: int) -> tuple[Source, int | None]:
    """At most this number of samples, spread evenly, and the `subset` of an opening that takes the same.

    Of tiles, whole images are taken, in proportion. Where the source has no more samples, it is returned with None.
    """
    if len(source) <= samples:
        return source, None
    if not isinstance(source, Tiles):
        return Subset(source, samples), samples
    images = max(2, samples * len(source.images) // len(source))
    return Tiles(Subset(source.images, images), source.shape[1]), images
