"""A digest of all samples of a source, built from the digests of its shards so that ranks can share the work."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from math import prod
from typing import Any

import numpy as np

from hpcule.config.errors import StoreError
from hpcule.data.annotations import mask_blocks
from hpcule.data.source import Ids, Samples, Source
from hpcule.store.manifest import Manifest

_BLOCK_BYTES = 16 << 20


def blocks(source: Source, first: int, count: int) -> Iterator[tuple[Ids, Samples]]:
    """Read the samples first .. first + count - 1 in blocks of about 16 MiB, with their ids."""
    rows = max(1, _BLOCK_BYTES // (prod(source.shape) * source.dtype.itemsize))
    for start in range(first, first + count, rows):
        ids = np.arange(start, min(start + rows, first + count), dtype=np.int64)
        yield ids, source.read(ids)


def shard_digest(samples: Samples, source: Source, first: int, *, labelled: bool = True) -> bytes:
    """Return the SHA-256 over dtype, shape and bytes of a shard's samples, and of all that is known of them.

    Args:
        samples: [n, C, H, W], those of `source` from the id `first` on.
        source: gives labels and masks.
        first: see above.
        labelled: whether these count.
    """
    digest = _begun(samples.dtype, samples.shape, labelled and source.labels is not None)
    digest.update(np.ascontiguousarray(samples, dtype=samples.dtype.newbyteorder("<")).data)
    if labelled:
        _add_annotations(digest, source, first, len(samples))
    return digest.digest()


def combine(digests: Sequence[bytes], shape: tuple[int, int, int], levels: int) -> str:
    """Return the fingerprint of a source from the digests of its shards in order."""
    digest = hashlib.sha256(f"{shape} {levels} {len(digests)}\n".encode())
    for part in digests:
        digest.update(part)
    return digest.hexdigest()


class Fingerprint:
    """The fingerprint of samples that pass by in the order of their ids, cut into shards of (first id, count)."""

    def __init__(self, source: Source, ranges: Sequence[tuple[int, int]], *, labelled: bool = True) -> None:
        """Start with the first sample; labels and masks of the source count where `labelled` says so."""
        self._source, self._ranges, self._labelled = source, ranges, labelled
        self._digests: list[bytes] = []
        self._begin()

    def add(self, samples: Samples) -> None:
        """Take the next samples [n, C, H, W]."""
        while len(samples):
            part, samples = samples[: self._missing], samples[self._missing :]
            self._digest.update(np.ascontiguousarray(part, dtype=self._source.dtype.newbyteorder("<")).data)
            self._missing -= len(part)
            if not self._missing:
                self._end()

    def value(self) -> str:
        """The fingerprint, once all samples have passed by."""
        assert len(self._digests) == len(self._ranges), f"{len(self._digests)} of {len(self._ranges)} shards"
        return combine(self._digests, self._source.shape, self._source.levels)

    def _begin(self) -> None:
        count = self._missing = self._ranges[len(self._digests)][1]
        classes = self._labelled and self._source.labels is not None
        self._digest = _begun(self._source.dtype, (count, *self._source.shape), classes)

    def _end(self) -> None:
        if self._labelled:
            _add_annotations(self._digest, self._source, *self._ranges[len(self._digests)])
        self._digests.append(self._digest.digest())
        if len(self._digests) < len(self._ranges):
            self._begin()


def fingerprint(source: Source, ranges: Sequence[tuple[int, int]], *, labelled: bool = True) -> str:
    """Return the fingerprint of a source that is cut into shards of (first id, count); the samples are streamed.

    Args:
        source: the samples, with their labels and masks if it has any.
        ranges: of the shards.
        labelled: whether these count.
    """
    found = Fingerprint(source, ranges, labelled=labelled)
    for first, count in ranges:
        for _, samples in blocks(source, first, count):
            found.add(samples)
    return found.value()


def require_same_samples(manifest: Manifest, source: Source) -> None:
    """Raise StoreError unless the source holds the very samples and labels that a store was made for."""
    wrong = ""
    if (len(source), source.shape, source.levels) != (manifest.n, manifest.sample_shape, manifest.levels):
        wrong = f"{len(source)} of shape {source.shape}, not {manifest.n} of shape {manifest.sample_shape}"
    elif not has_same_samples(manifest, source):
        wrong = "samples or labels differ" if manifest.labelled else "samples differ"
    if wrong:
        raise StoreError(
            f"these are not the samples the store was made for ({wrong}): {source.name} is given, "
            f"the store was made for {manifest.source.name}, split {manifest.source.split}"
        )


def has_same_samples(manifest: Manifest, source: Source) -> bool:
    """Whether samples, and labels where they count, are those that a store was made for; reads them all."""
    return fingerprint(source, shard_ranges(manifest), labelled=manifest.labelled) == manifest.source.fingerprint


def shard_ranges(manifest: Manifest) -> list[tuple[int, int]]:
    """First id and number of ids of each shard."""
    return [(entry.first, entry.count) for entry in manifest.shards]


def _begun(dtype: np.dtype[Any], shape: tuple[int, ...], labelled: bool) -> hashlib._Hash:
    return hashlib.sha256(f"{dtype.newbyteorder('<').str} {shape} {labelled}\n".encode())


def _add_annotations(digest: hashlib._Hash, source: Source, first: int, count: int) -> None:
    """Add labels, label by label where there are several, and masks of the samples first .. first + count - 1."""
    rows = slice(first, first + count)
    if source.labels is not None:
        digest.update(source.classes(rows).astype("<i8").data)
    if source.label_matrix is not None:
        digest.update(np.ascontiguousarray(source.label_matrix.values[rows]).data)
    if source.masks is not None:
        for masks in mask_blocks(source.masks, first, count):
            digest.update(np.ascontiguousarray(masks).data)
