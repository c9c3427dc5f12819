"""Steps that are fitted to the published training set before they change any sample."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from hpcule.config.errors import UsageError
from hpcule.publish.carry import Publish
from hpcule.victim.countermeasures.class_means import class_means
from hpcule.victim.countermeasures.denoise import denoise
from hpcule.victim.countermeasures.dvae import dvae
from hpcule.victim.countermeasures.spectral import HELD_OUT, equal_bands, fitted_lowpass, notch, wiener
from hpcule.victim.countermeasures.table import Applied, Countermeasures
from hpcule.victim.keeper import Keeper
from hpcule.victim.published import Published
from hpcule.world.group import World

FITTED: Mapping[str, int] = {
    "set-window": 1,
    "dvae": 2,
    "class-means": 2,
    "wiener": 2,
    "notch": HELD_OUT,
    "fitted-lowpass": HELD_OUT,
    "equal-bands": 1,
    "denoise": 1,
}
"""Steps that are fitted -> how many samples of each class that is there they need."""


def fitted_steps(steps: Countermeasures) -> list[Applied]:
    """The steps of a recipe that are fitted."""
    return [step for step in steps.steps if step.name in FITTED]


def fitted(
    step: Applied,
    train: Published,
    read: Callable[[Published], Published],
    seed: int,
    world: World,
    keeper: Keeper,
) -> Publish:
    """What such a step does to samples.

    Args:
        step: its name and strength.
        train: the training set, as it is read until then.
        read: how clean samples are read until then.
        seed: of the victim.
        world: the ranks that train the victim together.
        keeper: of the victim.

    Raises:
        UsageError: there are too few samples.
        DivergedError: a network that is fitted diverged.
        StoppedError: a signal has asked to stop.
    """
    strength = step.strength or 0
    fits: Mapping[str, Callable[[], Publish]] = {
        "dvae": lambda: dvae(train, strength, world, keeper),
        "class-means": lambda: class_means(train),
        "wiener": lambda: wiener(train),
        "notch": lambda: notch(train),
        "fitted-lowpass": lambda: fitted_lowpass(train),
        "equal-bands": lambda: equal_bands(train),
        "denoise": lambda: denoise(train, int(strength), read, seed, world),
    }
    _check_classes(step, train)
    return fits[step.name]()


def _check_classes(step: Applied, train: Published) -> None:
    labels, counts = np.unique(train.labels.numpy(), return_counts=True)
    fewest = FITTED[step.name]
    if counts.min() < fewest:
        raise UsageError(
            f"{step} needs {fewest} training samples of each class, and class {labels[counts.argmin()]} has "
            f"{counts.min()}: take more samples, or leave the step out"
        )
