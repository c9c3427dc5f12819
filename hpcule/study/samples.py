"""What a report shows of the samples: how far the published ones are from the clean ones, and a few of them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from hpcule.data.source import Ids, Samples, Source
from hpcule.measure.audibility import Audibility, AudibilityNumbers
from hpcule.measure.visibility import Visibility, VisibilityNumbers
from hpcule.store.read import StoreReader
from hpcule.study.pictures import Pictures, choose_samples, spectrograms

PICTURES = 8


def visibility(store: StoreReader, source: Source) -> VisibilityNumbers:
    """How far published images are from clean ones."""
    measured = Visibility(source.levels)
    for _, samples, published in _pairs(store, source):
        measured.update(torch.from_numpy(samples), torch.from_numpy(published))
    return measured.result()


def audibility(store: StoreReader, source: Source, rate: int) -> AudibilityNumbers:
    """How far published recordings, of so many samples a second, are from clean ones."""
    measured = Audibility(rate)
    for ids, samples, published in _pairs(store, source):
        measured.update(samples, published, source.lengths(ids))
    return measured.result()


def _pairs(store: StoreReader, source: Source) -> Iterator[tuple[Ids, Samples, Samples]]:
    """All ids, clean samples and published ones, in blocks."""
    for start in range(0, len(source), 1024):
        ids = np.arange(start, min(start + 1024, len(source)), dtype=np.int64)
        samples = source.read(ids)
        yield ids, samples, store.published(ids, samples)


def pictures(store: StoreReader, source: Source) -> Pictures:
    """A few samples of a labelled source, from as many classes as possible; of recordings their spectrograms."""
    assert source.labels is not None
    chosen = choose_samples(source.labels, PICTURES)
    samples = source.read(chosen)
    names = [(source.class_names or ())[source.labels[sample]] for sample in chosen]
    published = store.published(chosen, samples)
    if source.rate is not None:
        before, after = (spectrograms(recordings, source.rate) for recordings in (samples, published))
        return Pictures(clean=before, delta=after.astype(np.int32) - before, protected=after, names=names)
    delta = published.astype(np.int32) - samples.astype(np.int32)
    # Screens show 8 bits.
    shown = [(images // ((source.levels + 1) // 256)).astype(np.uint8) for images in (samples, published)]
    return Pictures(clean=shown[0], delta=delta, protected=shown[1], names=names)
