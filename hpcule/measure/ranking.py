"""What accuracy does not tell: how well scores rank samples, whatever the threshold.

Where one class is the larger part of a test set, or training and test sets differ in their shares, a network may know
much and yet name the wrong class: somebody who sets another threshold has what it knows.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

CHANCE = 0.5
"""Area under the curve of scores that tell nothing."""


def mean_area_under_curve(logits: Tensor, labels: Tensor) -> float | None:
    """How probable it is that a sample of a class scores higher for it than one of the others.

    This is the area under the ROC curve, one class against the rest, mean over the classes of the test set.

    Args:
        logits: finite, [n, classes].
        labels: int64 [n].

    Returns:
        None where all samples have one class.
    """
    labels, scores = labels.cpu(), _log_odds(logits.double().cpu())
    classes = np.unique(labels.numpy()).tolist()
    if len(classes) < 2:
        return None
    return float(np.mean([area_under_curve(scores[:, label], labels == label) for label in classes]))


def _log_odds(logits: Tensor) -> Tensor:
    """Log-odds of each class against all others [n, classes]; probabilities would round to 1 for confident samples."""
    best, total = logits.argmax(1, keepdim=True), logits.logsumexp(1, keepdim=True)
    # What the others have together is what is left of the total, but for the likeliest: that would leave nothing.
    others = total + torch.log1p(-(logits - total).exp())
    beside_best = logits.scatter(1, best, -torch.inf).logsumexp(1, keepdim=True)
    # Rounded, so that what is equal but for the last bits stays a tie.
    return (logits - others.scatter(1, best, beside_best)).round(decimals=9)


def area_under_curve(scores: Tensor, positive: Tensor) -> float:
    """Mann and Whitney's U as a share of its most: pairs in which the positive scores higher, ties counting half.

    Args:
        scores: float64 [n].
        positive: bool [n], some of them, and not all.
    """
    from scipy.stats import rankdata

    ranks = rankdata(scores.numpy())[positive.numpy()]
    count = len(ranks)
    return float((ranks.sum() - count * (count + 1) / 2) / (count * (len(scores) - count)))


def average_precision(scores: Tensor, positive: Tensor) -> float:
    """Mean over positive samples of the share of positives among those that score as high or higher.

    Args:
        scores: float64 [n].
        positive: bool [n], some of them.
    """
    values, order = scores.sort(descending=True)
    hits = positive[order].double().cumsum(0)
    # Equal scores are one threshold: all of them count from the last one's place on.
    last = torch.searchsorted(-values, -values, right=True) - 1
    precision = hits[last] / (last + 1)
    return float(precision[positive[order]].mean())
