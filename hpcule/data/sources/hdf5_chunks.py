"""Chunks of HDF5 datasets, none of which may decode to fewer bytes than its dataset's chunks have.

HDF5 copies a whole chunk from whatever the filters return, even from behind the end of its memory.
"""

from __future__ import annotations

import math
import zlib
from itertools import product

import h5py

FILTERS = {
    h5py.h5z.FILTER_DEFLATE,
    h5py.h5z.FILTER_SHUFFLE,
    h5py.h5z.FILTER_FLETCHER32,
    h5py.h5z.FILTER_LZF,
    h5py.h5z.FILTER_SZIP,
}
"""HDF5's own and h5py's: all others would run code from elsewhere."""
_COMPRESSING = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_LZF, h5py.h5z.FILTER_SZIP}
_CHECKSUM_BYTES = 4


def filters_of(dataset: h5py.Dataset) -> list[tuple[int, int, tuple[int, ...], bytes]]:
    """Filters of a dataset in the order of writing: code, flags, values, name."""
    properties = dataset.id.get_create_plist()
    return [properties.get_filter(number) for number in range(properties.get_nfilters())]


class DecodedChunks:
    """Compares the sizes of chunks with those of their dataset.

    Args:
        dataset: a dataset with no filters but those of `FILTERS`.
    """

    def __init__(self, dataset: h5py.Dataset) -> None:
        self._dataset, self._filters = dataset, filters_of(dataset)
        self._shape: tuple[int, ...] = dataset.shape
        self._chunks: tuple[int, ...] | None = dataset.chunks
        self._bytes = math.prod(dataset.chunks or ()) * dataset.id.get_type().get_size()
        codes = {code for code, *_ in self._filters}
        self._from_contents = bool(codes & {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SZIP})
        self._compared: set[int] = set()

    def require_size(self, chunk: h5py.h5d.StoreInfo) -> None:
        """Compare the stored size of a chunk, as far as that says how many bytes it decodes to.

        Args:
            chunk: what h5py's `chunk_iter` gives.

        Raises:
            ValueError: it cannot be what the dataset says.
        """
        code, decoded, after = self._expected(chunk.filter_mask)
        if (chunk.size <= after) if code is not None else (chunk.size != decoded):
            raise ValueError(f"chunk {chunk.chunk_offset} has {chunk.size} bytes, where {decoded} are due")

    def require_all(self) -> None:
        """Decode all chunks; raises as `require_rows`."""
        if self._chunks is not None:
            self.require_rows(0, self._shape[0])

    def require_rows(self, start: int, stop: int) -> None:
        """Decode the chunks that hold the rows start .. stop - 1, unless they were before.

        Chunks whose stored size says how many bytes they decode to are not read.

        Raises:
            ValueError: one decodes to another size than the dataset says.
            OSError: one cannot be read.
        """
        if self._chunks is None or not self._from_contents:
            return
        within = [range(0, length, chunk) for length, chunk in zip(self._shape[1:], self._chunks[1:], strict=True)]
        for row in range(start // self._chunks[0], -(-stop // self._chunks[0])):
            if row not in self._compared:
                for place in product([row * self._chunks[0]], *within):
                    self._require_decoded(place)
                self._compared.add(row)

    def _require_decoded(self, place: tuple[int, ...]) -> None:
        mask, stored = self._dataset.id.read_direct_chunk(place)
        code, decoded, after = self._expected(mask)
        packed = memoryview(stored)[: len(stored) - after]
        if code == h5py.h5z.FILTER_DEFLATE:
            try:
                found = len(zlib.decompressobj().decompress(packed, decoded + 1))
            except zlib.error as error:
                raise ValueError(f"chunk {place} does not inflate: {error}") from None
        elif code == h5py.h5z.FILTER_SZIP:
            found = int.from_bytes(packed[:4], "little")  # by which HDF5 allocates memory
        else:
            return
        if found != decoded:
            raise ValueError(f"chunk {place} does not decode to {decoded} bytes")

    def _expected(self, mask: int) -> tuple[int | None, int, int]:
        """Which compression a chunk has, how many bytes it decodes to, and how many bytes of checksums follow it.

        Args:
            mask: bits of the filters that were left out.
        """
        compression, decoded, after = None, self._bytes, 0
        for position, (code, _, values, _) in enumerate(self._filters):
            if mask >> position & 1:
                continue
            if code == h5py.h5z.FILTER_FLETCHER32 and compression is None:
                decoded += _CHECKSUM_BYTES
            elif code == h5py.h5z.FILTER_FLETCHER32:
                after += _CHECKSUM_BYTES
            elif code in _COMPRESSING:
                if compression is not None:
                    raise ValueError("chunks are compressed twice")
                if code != h5py.h5z.FILTER_DEFLATE and decoded != self._bytes:
                    raise ValueError("chunks have checksums inside their lzf or szip compression")
                # LZF's third value is how much memory h5py allocates for the decoded chunk.
                if code == h5py.h5z.FILTER_LZF and (len(values) < 3 or values[2] < self._bytes):
                    raise ValueError("chunks are larger than their lzf compression says")
                compression = code
        return compression, decoded, after
