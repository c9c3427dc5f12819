"""That what is published is what the store was made for: the samples are hashed as they pass by on their way."""

from __future__ import annotations

import numpy as np

from hpcule.config.errors import StoreError
from hpcule.data.source import Ids, Native, Recording, Samples, Source
from hpcule.data.sources.recording import working
from hpcule.data.tiles import Tiles
from hpcule.publish.carry import as_crafted
from hpcule.store.fingerprint import Fingerprint, has_same_samples, shard_ranges
from hpcule.store.read import StoreReader, require_unaltered


class UnchangedSamples:
    """Compares the clean samples that are published with those that a store was made for.

    A file may be replaced between the comparison that precedes an export and the moment when it is read once more.
    """

    def __init__(self, reader: StoreReader, source: Source) -> None:
        manifest = reader.manifest
        self._reader, self._source = reader, source
        self._fingerprint = Fingerprint(source, shard_ranges(manifest), labelled=manifest.labelled)
        self._next = 0
        self._block: tuple[int, Samples] = (0, np.empty(0))

    def add(self, ids: Ids, clean: Samples) -> None:
        """Take clean samples [n, C, H, W] as the source reads them."""
        self._block = int(ids[0]), clean
        self._take(int(ids[0]), clean)

    def add_native(self, image: int, clean: Native) -> None:
        """Take an image at its own size, by its number."""
        source = self._source
        first = int(source.of_image(image)[0]) if isinstance(source, Tiles) else image
        self._take(first, as_crafted(source, clean))

    def check_recording(self, sample: int, clean: Recording) -> None:
        """Compare a recording, as its file holds it, with its sample in the block that was added last.

        Raises:
            StoreError: they differ.
        """
        first, block = self._block
        mixed = working(clean)
        if not np.array_equal(mixed, block[sample - first, 0, 0, : len(mixed)]):
            raise self._changed()

    def confirm(self) -> None:
        """Compare all samples that were added, and the files of the store, with the manifest.

        Raises:
            StoreError: a sample or a file has changed since the export began.
        """
        manifest = self._reader.manifest
        if self._next == len(self._source):
            same = self._fingerprint.value() == manifest.source.fingerprint
        else:
            same = has_same_samples(manifest, self._source)
        if not same:
            raise self._changed()
        require_unaltered(self._reader.vault, manifest)

    def _take(self, first: int, samples: Samples) -> None:
        # Writers take samples in the order of their ids; what is asked for twice counts once.
        if first == self._next:
            self._fingerprint.add(samples)
            self._next += len(samples)

    def _changed(self) -> StoreError:
        return StoreError(
            f"{self._source.name}: samples changed while they were published, so nothing was published: restore the "
            "data that the store was made for, and export again"
        )
