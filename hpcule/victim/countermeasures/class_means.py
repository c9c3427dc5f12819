"""What training samples of a class have in common beyond all others is subtracted from them."""

from __future__ import annotations

import numpy as np

from hpcule.data.source import Ids, Samples
from hpcule.publish.carry import Publish
from hpcule.victim.published import Published


def class_means(train: Published) -> Publish:
    """Subtract from each sample how the mean of its class deviates from the mean of all, clipped and rounded.

    A perturbation that is the same for a class goes whole; so does what sets the images of a class apart on average.
    """
    labels, levels = train.source.labels, train.source.levels
    assert labels is not None
    sums = np.zeros((train.source.class_count, *train.shape), np.int64)
    for samples, classes in train.blocks():
        np.add.at(sums, classes.numpy(), samples.numpy())
    counts = np.bincount(train.labels.numpy(), minlength=len(sums)).reshape(-1, 1, 1, 1)
    deviations = sums / np.maximum(counts, 1) - sums.sum(0) / len(train)

    def change(ids: Ids, samples: Samples) -> Samples:
        rest: Samples = np.clip(np.rint(samples - deviations[labels[ids]]), 0, levels).astype(samples.dtype)
        return rest

    return change
