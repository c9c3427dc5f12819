"""What an accuracy means: means and intervals over seeds, and over the images of one test set."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, stdev

import numpy as np
import numpy.typing as npt

CONFIDENCE = 0.95
ACCURACY, BALANCED, AREA = "accuracy", "balanced accuracy", "mean AUC"
"""Names of measures: the share of samples that are recognised, its mean over classes, and the mean over classes of the
area under the ROC curve, one class against the rest."""
LEARNT = 0.2
"""A clean control counts as having learnt when it closes a fifth of the gap between chance and 1."""


@dataclass(frozen=True)
class Summary:
    """Mean of `n` values and its interval at 95 % confidence; None where one value allows none."""

    mean: float
    interval: tuple[float, float] | None
    n: int


@dataclass(frozen=True)
class Headline:
    """The measure of a test that stands for what a network has learnt.

    Attributes:
        measure: its name; it lies in [0, 1].
        chance: what the best answer reaches that does not look at samples.
        effective: number of samples of which an accuracy would vary as much as the measure does by the choice of the
            test samples.
    """

    measure: str
    chance: float
    effective: float

    @classmethod
    def of(cls, labels: npt.NDArray[np.int64]) -> Headline:
        """That of naming the classes [n] of test samples.

        It is balanced accuracy where always naming the largest class would count as learnt by its standard: there
        accuracy flatters. Otherwise it is accuracy.
        """
        counts = np.bincount(labels)
        counts = counts[counts > 0]
        largest, equal = chance_level(labels), 1 / len(counts)
        if len(counts) == 1 or not has_learnt(largest, equal):
            return cls(ACCURACY, largest, len(labels))
        # The variance of the mean of K recalls, each over its own class's samples.
        return cls(BALANCED, equal, len(counts) ** 2 / float((1 / counts).sum()))


def recognised(answers: npt.NDArray[np.int64], labels: npt.NDArray[np.int64], measure: str) -> float:
    """Accuracy, or balanced accuracy, of answers [n] to samples with labels [n]; in [0, 1]."""
    right = answers == labels
    if measure == ACCURACY:
        return float(right.mean())
    return fmean(float(right[labels == label].mean()) for label in np.unique(labels))


def chance_level(labels: npt.NDArray[np.int64]) -> float:
    """Accuracy of always guessing the most frequent of the labels [n]."""
    return float(np.bincount(labels).max() / len(labels))


def has_learnt(accuracy: float, chance: float) -> bool:
    """Whether a clean control has learnt, so that comparisons with it mean anything; both in [0, 1]."""
    return accuracy >= chance + LEARNT * (1 - chance)


def interval(values: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float] | None:
    """Student-t interval for the mean of independent values; None for a single value. Nothing is cut off."""
    assert values, "no values"
    if len(values) == 1:
        return None
    # scipy takes half a second to import, and one seed needs none of it.
    from scipy.stats import t

    quantile = float(t.ppf((1 + confidence) / 2, len(values) - 1))
    half = quantile * stdev(values) / math.sqrt(len(values))
    mean = fmean(values)
    return mean - half, mean + half


def summarise(values: Sequence[float]) -> Summary:
    """Mean and interval of accuracies, one a seed, each in [0, 1]; the interval is cut to [0, 1]."""
    bounds = interval(values)
    return Summary(fmean(values), bounds and (max(0.0, bounds[0]), min(1.0, bounds[1])), len(values))


def paired_difference(a: Sequence[float], b: Sequence[float]) -> Summary:
    """Mean and interval of a - b, where a[i] and b[i] belong to the same seed.

    Raises:
        ValueError: the lengths differ.
    """
    differences = [first - second for first, second in zip(a, b, strict=True)]
    return Summary(fmean(differences), interval(differences), len(differences))


def wilson(correct: float, total: float, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Wilson score interval for one accuracy, `correct` of `total` test images; within [0, 1].

    Neither need be a whole number: see `Headline.effective`.

    Wilson, "Probable inference, the law of succession, and statistical inference", JASA 1927.
    """
    assert 0 <= correct <= total, f"{correct} of {total}"
    assert total > 0, "an empty test set has no accuracy"
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = correct / total
    centre = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return max(0.0, centre - half), min(1.0, centre + half)
