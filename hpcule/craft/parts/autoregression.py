"""Autoregressive processes on images, and the search for coefficients that tell classes apart.

A pattern starts with random rows and columns at its upper and left edge; every other value is a weighted sum of its
neighbours above and to the left. Since the weights b are a rule without noise, the filter that has -1 in the last place
of b answers with zero everywhere on b's own patterns, and on no others.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from hpcule.config.errors import HpculeError
from hpcule.craft.parts.model_free import Floats
from hpcule.data.source import Ids
from hpcule.world.keyed import normal

WINDOW = 3
"""Side of the neighbourhood; its lower right corner is the value that follows from the others."""
TRIALS = 8192
"""Candidates looked at together; one or two in a hundred stay bounded."""
POOL = 512
"""Number of drawn candidates, of which those are kept whose filters answer on most of the others."""
MOST_TRIALS = 10**6
PATTERNS = 3
"""Patterns of each candidate."""
COMPARED = 64
"""Largest side of the patterns on which filters are compared: larger ones tell no more, at the cost of their area."""
LARGEST = 0.9
"""Root mean square of a pattern before it is scaled: a length of 50 at 32 x 32 x 3. Larger ones are diverging."""


def generate(coefficients: Floats, purpose: int, ids: Ids, height: int, width: int, crop: int) -> Floats:
    """A pattern for each id, without its first `crop` rows and columns, which are still random.

    Args:
        coefficients: [n, C, 3, 3], the last of each channel is not used.
        purpose: key of the random starts.
        ids: [n].
        height: of the result.
        width: of the result.
        crop: at least 2.

    Returns:
        [n, C, H, W], not scaled; infinite or huge where the process diverges.
    """
    count, channels = coefficients.shape[:2]
    full = height + crop, width + crop
    signal = np.zeros((count, channels, full[0] * full[1]))
    edge = [row * full[1] + column for row in range(full[0]) for column in range(full[1]) if min(row, column) < 2]
    signal[:, :, edge] = normal(purpose, ids, channels * len(edge)).reshape(count, channels, -1)
    weights = coefficients.reshape(count, channels, 1, -1)[..., :-1]
    with np.errstate(over="ignore", invalid="ignore"):
        for places, neighbours in _waves(*full):
            signal[:, :, places] = (signal[:, :, neighbours] * weights).sum(axis=-1)
    return signal.reshape(count, channels, *full)[:, :, crop:, crop:]


def _waves(height: int, width: int) -> Iterator[tuple[Ids, Ids]]:
    """Places [m] of an image whose values depend on earlier waves alone, and their neighbours [m, 8].

    A value depends on values above and to the left, so all values of an anti-diagonal can be computed together.
    """
    reach = WINDOW - 1
    taps = np.array([(row - reach) * width + column - reach for row in range(WINDOW) for column in range(WINDOW)][:-1])
    for diagonal in range(2 * reach, height + width - 1):
        rows = np.arange(max(reach, diagonal - width + 1), min(height, diagonal - reach + 1))
        places = rows * width + diagonal - rows
        yield places, places[:, None] + taps


def responses(patterns: Floats, coefficients: Floats) -> Floats:
    """What the matching filters of coefficients [m, C, 3, 3] answer on patterns [n, C, H, W]: sums of positive parts.

    Returns:
        [n, m]; 0 for the patterns that the coefficients have made.
    """
    weights = coefficients.copy()
    weights[:, :, -1, -1] = -1
    windows = np.lib.stride_tricks.sliding_window_view(patterns, (WINDOW, WINDOW), axis=(2, 3))
    flat = windows.transpose(0, 2, 3, 1, 4, 5).reshape(len(patterns), -1, weights[0].size)
    answers: Floats = np.maximum(flat @ weights.reshape(len(weights), -1).T, 0).sum(axis=1)
    return answers


def find_coefficients(classes: int, shape: tuple[int, int, int], crop: int, least: float, purpose: int) -> Floats:
    """Coefficients [K, C, 3, 3] whose patterns stay bounded, and on which all earlier ones' filters answer.

    The authors take or leave one random candidate after the other. Here a pool of them is asked at once, and the next
    one taken is that whose filter answers on most of those that are still eligible: the same condition, met after a
    hundredth of the trials.

    Args:
        classes: K.
        shape: of a sample.
        crop: see `generate`.
        least: smallest response of an accepted filter to a later one's patterns, which are scaled to length 1, if they
            were of 32 x 32; responses to larger ones grow with the root of their area.
        purpose: key of the search.

    Raises:
        HpculeError: the candidates ran out.
    """
    pool, chosen = np.zeros((0, shape[0], WINDOW, WINDOW)), np.zeros(0, np.int64)
    channels, height, width = _compared(shape)
    least *= math.sqrt(height * width) / 32
    patterns = np.zeros((0, PATTERNS, channels, height, width))
    for start in range(0, MOST_TRIALS, TRIALS):
        more, grown = _candidates(np.arange(start, start + TRIALS), shape, crop, purpose)
        pool, patterns = np.concatenate([pool, more]), np.concatenate([patterns, grown])
        answers = np.stack([responses(own, pool).min(axis=0) for own in patterns]) >= least
        best = np.argsort(-answers.sum(axis=0), kind="stable")[:POOL]
        pool, patterns, answers = pool[best], patterns[best], answers[np.ix_(best, best)]
        chosen = _chain(answers, classes)
        if len(chosen) == classes:
            return pool[chosen]
    raise HpculeError(
        f"found coefficients for {len(chosen)} of {classes} classes in {MOST_TRIALS} trials: lower method.response"
    )


def _candidates(trials: Ids, shape: tuple[int, int, int], crop: int, purpose: int) -> tuple[Floats, Floats]:
    """Coefficients [m, C, 3, 3] of those trials that stay bounded, and patterns [m, 3, C, h, w] of length 1 that are
    compared."""
    drawn = normal(purpose, trials, shape[0] * WINDOW**2).reshape(-1, shape[0], WINDOW, WINDOW)
    drawn[:, :, -1, -1] = 0
    candidates = drawn / drawn.sum(axis=(2, 3), keepdims=True)
    # Most fall at a small pattern, or at their first.
    for turn, (height, width) in enumerate([(8, 8), *[shape[1:]] * PATTERNS]):
        ids = trials * PATTERNS + max(0, turn - 1) + MOST_TRIALS  # which no trial has
        bounded = _bounded(generate(candidates, purpose, ids, height, width, crop))
        trials, candidates = trials[bounded], candidates[bounded]
    ids = (trials[:, None] * PATTERNS + np.arange(PATTERNS)).ravel() + MOST_TRIALS
    patterns = generate(candidates.repeat(PATTERNS, axis=0), purpose, ids, *_compared(shape)[1:], crop)
    patterns /= np.sqrt(np.square(patterns).sum(axis=(1, 2, 3), keepdims=True))
    return candidates, patterns.reshape(-1, PATTERNS, *_compared(shape))


def _compared(shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """Shape [C, h, w] of the patterns on which the filters of samples [C, H, W] are compared."""
    return shape[0], min(shape[1], COMPARED), min(shape[2], COMPARED)


def _bounded(patterns: Floats) -> npt.NDArray[np.bool_]:
    """Which of the patterns [n, C, H, W] do not diverge."""
    with np.errstate(over="ignore", invalid="ignore"):
        size = np.square(patterns).mean(axis=(1, 2, 3))
        bounded: npt.NDArray[np.bool_] = (size > 0) & (size <= LARGEST**2)
    return bounded


def _chain(answers: npt.NDArray[np.bool_], length: int) -> Ids:
    """Numbers of up to `length` candidates, in order: on each one's patterns the filters of all earlier ones answer.

    Args:
        answers: [n, n], whether the filter of the column answers on all patterns of the row.
        length: how many are wanted.
    """
    eligible = np.ones(len(answers), bool)
    chain: list[int] = []
    while len(chain) < length and eligible.any():
        remaining = answers[eligible].sum(axis=0) * eligible - ~eligible
        chain.append(int(np.argmax(remaining)))
        # A filter is silent on its own patterns, so that none is taken twice.
        eligible &= answers[:, chain[-1]]
    return np.array(chain, np.int64)
