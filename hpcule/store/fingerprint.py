"""A digest of all samples of a source, built from the digests of its shards so that ranks can share the work."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from hpcule.config.errors import StoreError
from hpcule.data.source import Ids, Labels, Samples, Source
from hpcule.store.manifest import Manifest

_BLOCK_BYTES = 16 << 20


def blocks(source: Source, first: int, count: int) -> Iterator[tuple[Ids, Samples]]:
    """Read the samples first .. first + count - 1 in blocks of about 16 MiB, with their ids."""
    rows = max(1, _BLOCK_BYTES // (prod(source.shape) * source.dtype.itemsize))
    for start in range(first, first + count, rows):
        ids = np.arange(start, min(start + rows, first + count), dtype=np.int64)
        yield ids, source.read(ids)


def shard_digest(samples: Samples, labels: Labels | None) -> bytes:
    """Return the SHA-256 over dtype, shape and bytes of a shard's samples [n, C, H, W] and labels int64 [n]."""
    return _digest(samples.dtype, samples.shape, [samples], labels)


def combine(digests: Sequence[bytes], shape: tuple[int, int, int], levels: int) -> str:
    """Return the fingerprint of a source from the digests of its shards in order."""
    digest = hashlib.sha256(f"{shape} {levels} {len(digests)}\n".encode())
    for part in digests:
        digest.update(part)
    return digest.hexdigest()


def fingerprint(source: Source, ranges: Sequence[tuple[int, int]], *, labelled: bool = True) -> str:
    """Return the fingerprint of a source that is cut into shards of (first id, count); the samples are streamed.

    Args:
        source: the samples, and their labels if it has any.
        ranges: of the shards.
        labelled: whether labels count.
    """
    digests = []
    for first, count in ranges:
        labels = source.labels[first : first + count] if labelled and source.labels is not None else None
        samples = (block for _, block in blocks(source, first, count))
        digests.append(_digest(source.dtype, (count, *source.shape), samples, labels))
    return combine(digests, source.shape, source.levels)


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
    ranges = [(entry.first, entry.count) for entry in manifest.shards]
    return fingerprint(source, ranges, labelled=manifest.labelled) == manifest.source.fingerprint


def _digest(
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    samples: Iterator[Samples] | Sequence[Samples],
    labels: npt.NDArray[np.int64] | None,
) -> bytes:
    digest = hashlib.sha256(f"{dtype.newbyteorder('<').str} {shape} {labels is not None}\n".encode())
    for block in samples:
        digest.update(np.ascontiguousarray(block, dtype=dtype.newbyteorder("<")).data)
    if labels is not None:
        digest.update(np.ascontiguousarray(labels, dtype="<i8").data)
    return digest.digest()
