"""What a report shows of the samples: how far the published ones are from the clean ones, and a few of them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from hpcule.config.errors import one_line
from hpcule.data.source import Ids, Samples, Source
from hpcule.evaluation.pictures import Pictures, choose_samples, spectrograms
from hpcule.evaluation.results import StructureDocument
from hpcule.measure.accuracy import Headline
from hpcule.measure.audibility import Audibility, AudibilityNumbers
from hpcule.measure.bayes import bayes_error
from hpcule.measure.detection import detection
from hpcule.measure.perceptual import Perceptual
from hpcule.measure.structure import class_share, linear_separability
from hpcule.measure.visibility import Visibility, VisibilityNumbers
from hpcule.publish.carry import carries, files_of, publishing
from hpcule.store.fingerprint import blocks
from hpcule.store.read import StoreReader

PICTURES = 8
MOST_SAMPLES, MOST_VALUES = 4096, 3072
"""Largest number of samples, spread evenly, and of values of each, drawn once, that structure is measured on."""
MOST_PAIRED = 2048
"""Number of samples, drawn once, that are compared with all others for the Bayes error."""
MOST_PERCEIVED = 1000
"""Largest number of samples that LPIPS is measured on."""


def visibility(store: StoreReader, source: Source, perceptual: Perceptual | None = None) -> VisibilityNumbers:
    """How far published images are from clean ones; of some of them also perceptually."""
    measured = Visibility(source.levels)
    for _, samples, published in _pairs(store, source):
        measured.update(torch.from_numpy(samples), torch.from_numpy(published))
    numbers = measured.result()
    if carries(store.manifest, source) and files_of(source) is source:
        numbers["resized"] = True
    if perceptual:
        distances = np.concatenate([part.numpy() for part in _perceived(store, source, perceptual)])
        mean, largest = float(distances.mean()), float(distances.max())
        numbers |= {"lpips_mean": mean, "lpips_max": largest, "lpips_n": len(distances)}
    return numbers


def audibility(store: StoreReader, source: Source, rate: int) -> AudibilityNumbers:
    """How far published recordings are from clean ones; `rate` is in samples a second."""
    measured = Audibility(rate)
    for ids, samples, published in _pairs(store, source):
        measured.update(samples, published, source.lengths(ids))
    return measured.result()


def measure_structure(store: StoreReader, source: Source) -> StructureDocument:
    """What the perturbation reveals of the labels, compared with what the samples reveal to a linear classifier."""
    assert source.labels is not None
    ids = _spread(source, MOST_SAMPLES)
    count, size = len(ids), int(np.prod(source.shape))
    places = np.sort(np.random.default_rng(0).permutation(size)[:MOST_VALUES])
    clean, delta = np.empty((count, len(places)), np.float32), np.empty((count, len(places)), np.float32)
    publish = publishing(store, source)
    for start in range(0, count, 1024):
        rows = slice(start, min(start + 1024, count))
        samples = source.read(ids[rows])
        clean[rows] = samples.reshape(len(samples), -1)[:, places]
        delta[rows] = publish(ids[rows], samples).reshape(len(samples), -1)[:, places] - clean[rows]
    labels, deltas = torch.from_numpy(source.classes(ids)), torch.from_numpy(delta)
    values = torch.from_numpy(clean)
    # Not every second one: classes may alternate.
    paired = torch.randperm(count, generator=torch.Generator().manual_seed(0))[:MOST_PAIRED]
    published, headline = values + deltas, Headline.of(source.classes(ids))
    return {
        "delta": linear_separability(deltas, labels, source.class_count),
        "clean": linear_separability(values, labels, source.class_count),
        "bayes": {
            "published": bayes_error(published[paired], labels[paired], source.class_count),
            "clean": bayes_error(values[paired], labels[paired], source.class_count),
        },
        "detection": {
            "published": detection(published, labels, source.class_count),
            "clean": detection(values, labels, source.class_count),
        },
        "class_share": class_share(deltas, labels),
        "measure": headline.measure,
        "chance": headline.chance,
        "n": count,
        "values": len(places),
    }


def _spread(source: Source, most: int) -> Ids:
    """Return at most `most` ids, spread evenly."""
    count = min(len(source), most)
    return np.arange(count, dtype=np.int64) * len(source) // count


def _perceived(store: StoreReader, source: Source, perceptual: Perceptual) -> Iterator[Tensor]:
    """LPIPS of some images, in batches."""
    ids, publish = _spread(source, MOST_PERCEIVED), publishing(store, source)
    for part in np.array_split(ids, -(-len(ids) // 50)):
        samples = source.read(part)
        pair = (samples, publish(part, samples))
        yield perceptual.distances(*(torch.from_numpy(images.astype(np.float32)) / source.levels for images in pair))


def _pairs(store: StoreReader, source: Source) -> Iterator[tuple[Ids, Samples, Samples]]:
    """All ids, clean samples and published ones, in blocks."""
    publish = publishing(store, source)
    for ids, samples in blocks(source, 0, len(source)):
        yield ids, samples, publish(ids, samples)


def pictures(store: StoreReader, source: Source) -> Pictures:
    """A few samples, from as many classes as possible; of recordings their spectrograms, of volumes the slice in the
    middle."""
    labels = np.zeros(len(source), np.int64) if source.labels is None else source.labels
    chosen = choose_samples(labels, PICTURES)
    samples = source.read(chosen)
    names = [one_line(source.class_names[labels[sample]]) if source.class_names else "" for sample in chosen]
    published = publishing(store, source)(chosen, samples)
    if source.depth is not None:
        samples, published = (np.split(part, source.depth, axis=2)[source.depth // 2] for part in (samples, published))
    if source.rate is not None:
        before, after = (spectrograms(recordings, source.rate) for recordings in (samples, published))
        return Pictures(clean=before, delta=after.astype(np.int32) - before, protected=after, names=names)
    delta = published.astype(np.int32) - samples.astype(np.int32)
    # Screens show 8 bits.
    shown = [(images // ((source.levels + 1) // 256)).astype(np.uint8) for images in (samples, published)]
    return Pictures(clean=shown[0], delta=delta, protected=shown[1], names=names)
