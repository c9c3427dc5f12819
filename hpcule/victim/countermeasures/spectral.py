"""Filters that an attacker fits to the spectra of published images, against perturbations that lie in some bands.

A perturbation whose spectrum names the class, as that of class texture does, shows in the mean spectra of the classes.
A filter may differ by class where the label is known, which it is in training alone; one that is the same for all
images, or fitted to each by itself, can change test images as well.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from hpcule.data.source import Labels
from hpcule.nets.logistic import logistic_regression
from hpcule.publish.carry import Publish
from hpcule.victim.countermeasures.bands import (
    SECTORS,
    Values,
    band_energies,
    bands_of,
    filtered,
    powers,
)
from hpcule.victim.published import Published
from hpcule.world.keyed import key, order

SHARES = (0, 0.125, 0.25, 0.5, 0.75)
"""Shares of the bands that a notch may take out."""
HELD_OUT = 5
"""Every fifth image of a class is in the attacker's own validation part."""
LARGEST_FACTOR = 4.0
"""Factor by which the amplitudes of a band grow or shrink at most: nearly empty bands have nothing but rounding."""
ROUNDING = 1 / 12
"""Variance of what rounding to levels changes."""
NOTHING = 1e-9
"""Energy that stands for 0 in a denominator."""


def wiener(train: Published) -> Publish:
    """Give each class the energy that is usual for classes at each frequency, where it has more.

    The usual is the lower median of the classes' mean spectra: the smallest of two. With what a class has beyond it as
    the noise, the share of the usual in the whole is Wiener's gain. Amplitudes are multiplied by its square root, as in
    power spectrum equalisation: by the gain itself, the class would be left less than the usual, which names it again.
    """
    labels = train.source.labels
    assert labels is not None
    sums = np.zeros((train.source.class_count, train.shape[1], train.shape[2] // 2 + 1))
    for label, power in powers(train):
        sums[label] += power
    counts = np.bincount(train.labels.numpy(), minlength=len(sums))
    spectra = sums / np.maximum(counts, 1)[:, None, None]
    usual = np.sort(spectra[counts > 0], axis=0)[(np.count_nonzero(counts) - 1) // 2]
    gains = np.sqrt(usual / np.maximum(np.maximum(spectra, usual), NOTHING))
    gains[:, 0, 0] = 1  # brightness stays
    return filtered(lambda number, power: gains[labels[number]], train.source.levels)


def notch(train: Published) -> Publish:
    """Take out of all images the bands in which the classes differ most; see `_taken_out` for how many."""
    bands, labels = bands_of(train.shape), train.labels.numpy()
    logs, held = np.log(_energies(train, bands) + ROUNDING), _held_out(train)
    ranks = np.argsort(-_separations(logs[~held], labels[~held]), kind="stable")
    return _taken_out(train, bands, logs, ranks, SHARES)


def fitted_lowpass(train: Published) -> Publish:
    """Take the shortest waves out of all images; see `_taken_out` for how many."""
    bands = bands_of(train.shape)
    logs = np.log(_energies(train, bands) + ROUNDING)
    count = logs.shape[1]
    octaves = -(-count // SECTORS)
    # Bands are numbered by their octaves, of which the shortest waves are the first; one octave stays.
    return _taken_out(train, bands, logs, np.arange(count), [octave / octaves for octave in range(octaves)])


def _taken_out(
    train: Published,
    bands: npt.NDArray[np.int64],
    logs: Values,
    ranks: npt.NDArray[np.int64],
    shares: Sequence[float],
) -> Publish:
    """Take bands out of all images.

    Of the shares of the bands that may go, it is the smallest after which a linear classifier of the other bands'
    energies has lost half of what it names beyond chance in the attacker's own validation part, or names no more than
    two standard errors beyond chance; the largest where none is enough.

    Args:
        train: what it is fitted to.
        bands: of each frequency.
        logs: logarithms of the energies of all samples [n, bands].
        ranks: the bands in the order in which they go.
        shares: in rising order.
    """
    labels, held = train.labels.numpy(), _held_out(train)
    chance = np.bincount(labels[held]).max() / np.count_nonzero(held)
    error = np.sqrt(chance * (1 - chance) / np.count_nonzero(held))
    limit = chance + max((_accuracy(logs, labels, held) - chance) / 2, 2 * error)
    for share in shares:
        count = round(share * len(ranks))
        if _accuracy(logs[:, ranks[count:]], labels, held) <= limit:
            break
    gains = np.where(np.isin(bands, ranks[:count]), 0.0, 1.0)
    return filtered(lambda number, power: gains, train.source.levels)


def equal_bands(train: Published) -> Publish:
    """Give each band of every image the energy that it has in the training set on average, by one factor a band."""
    bands = bands_of(train.shape)
    mean = _energies(train, bands).mean(0)

    def gains(number: int, power: Values) -> Values:
        own = np.maximum(band_energies(power, bands), NOTHING)
        factors = np.clip(np.sqrt(mean / own), 1 / LARGEST_FACTOR, LARGEST_FACTOR)
        found: Values = np.append(factors, 1.0)[bands]  # at -1, for the mean
        return found

    return filtered(gains, train.source.levels)


def _energies(train: Published, bands: npt.NDArray[np.int64]) -> Values:
    """The energies of all samples [n, bands]."""
    return np.stack([band_energies(power, bands) for _, power in powers(train)])


def _held_out(train: Published) -> npt.NDArray[np.bool_]:
    """Which samples [n] are the attacker's own validation part."""
    labels, held = train.labels.numpy(), np.zeros(len(train), bool)
    for label in np.unique(labels):
        held[order(key(0, "notch"), np.flatnonzero(labels == label))[::HELD_OUT]] = True
    return held


def _separations(logs: Values, labels: Labels) -> Values:
    """How far the classes lie apart in each band: the variance of their means over that within them [bands]."""
    rows = [logs[labels == label] for label in np.unique(labels)]
    within = sum(len(own) * own.var(0) for own in rows)
    between = sum(len(own) * (own.mean(0) - logs.mean(0)) ** 2 for own in rows)
    found: Values = np.asarray(between / np.maximum(within, NOTHING))
    return found


def _accuracy(logs: Values, labels: Labels, held: npt.NDArray[np.bool_]) -> float:
    """Share of the validation part that logistic regression, fitted to the others, names right."""
    mean, deviation = logs[~held].mean(0), np.maximum(logs[~held].std(0), 1e-6)
    values, classes = torch.from_numpy(((logs - mean) / deviation).astype(np.float32)), torch.from_numpy(labels)
    weights, bias = logistic_regression(values[~held], classes[~held], int(labels.max()) + 1)
    named = (values[held] @ weights + bias).argmax(1)
    return float((named == classes[held]).float().mean())
