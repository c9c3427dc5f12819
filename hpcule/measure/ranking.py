"""What accuracy does not tell: answers class by class, and how well scores rank samples, whatever the threshold.

Where one class is the larger part of a test set, or training and test sets differ in their shares, a network may know
much and yet name the wrong class: somebody who sets another threshold has what it knows.
"""

from __future__ import annotations

from typing import TypedDict

import numpy as np
import torch
from torch import Tensor

CHANCE = 0.5
"""Area under the curve of scores that tell nothing."""


class Ranking(TypedDict):
    """Shares in [0, 1], each a mean over the classes of the test set.

    Attributes:
        balanced: of a class's samples, those that are recognised (balanced accuracy).
        area: how probable it is that a sample of a class scores higher for it than one of the others (area under the
            ROC curve, one class against the rest); None where all samples have one class.
    """

    balanced: float
    area: float | None


def ranking(logits: Tensor, labels: Tensor) -> Ranking:
    """Measure the answers of a network.

    Args:
        logits: finite, [n, classes].
        labels: int64 [n].
    """
    logits, labels = logits.double().cpu(), labels.cpu()
    right = logits.argmax(1) == labels
    present = np.unique(labels.numpy()).tolist()
    areas = []
    for label in present:
        mine = labels == label
        if not mine.all():
            others = torch.cat([logits[:, :label], logits[:, label + 1 :]], 1)
            # The log-odds of the class: its probability would be 1 for all that are sure of it.
            areas.append(_area(logits[:, label] - others.logsumexp(1), mine))
    return {
        "balanced": float(np.mean([float(right[labels == label].double().mean()) for label in present])),
        "area": float(np.mean(areas)) if areas else None,
    }


def _area(scores: Tensor, positive: Tensor) -> float:
    """Mann and Whitney's U as a share of its most: pairs in which the positive scores higher, ties counting half."""
    from scipy.stats import rankdata

    ranks = rankdata(scores.numpy())[positive.numpy()]
    count = len(ranks)
    return float((ranks.sum() - count * (count + 1) / 2) / (count * (len(scores) - count)))
