"""How an attacker reads images before a network sees any: the steps of a recipe that change every sample once.

As published, such steps change training samples only, and victims are tested on unchanged samples. `test-too`, and
steps that are part of reading as `size` is, change test samples in the same way, unless they go by labels.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from hpcule.publish.carry import Publish
from hpcule.victim.config import VictimConfig
from hpcule.victim.countermeasures.fitted import FITTED, fitted
from hpcule.victim.countermeasures.purify import PURIFICATIONS, purification
from hpcule.victim.countermeasures.squeeze import squeeze, squeezed_shape
from hpcule.victim.countermeasures.table import STEPS, Applied
from hpcule.victim.countermeasures.window import in_window, window_of
from hpcule.victim.keeper import Keeper
from hpcule.victim.published import Published
from hpcule.world.group import World

Change = Callable[[Published], Published]
"""A function of samples that returns them as a step leaves them."""


class ReadingSteps:
    """What the steps of a recipe that act once do, in their order, each fitted to what those before it leave.

    Attributes:
        train: the training set, as it is read.
    """

    def __init__(
        self, train: Published, config: VictimConfig, seed: int, world: World, keeper: Keeper | None = None
    ) -> None:
        """Fit the steps.

        Args:
            train: what was published.
            config: the recipe.
            seed: of the victim.
            world: the ranks that train the victim together.
            keeper: of the victim; None: nothing is kept.

        Raises:
            UsageError, DataError: a step cannot be had; see `purification`, `fitted` and `in_window`.
        """
        self.train = train
        self._steps, self._changes = config.countermeasures, dict[Applied, Change]()
        for step in self._steps.at("samples"):
            change: Change
            if STEPS[step.name].window:
                change = partial(in_window, step=step, window=window_of(step, self.train))
            elif step.name in FITTED:
                change = _through(step, fitted(step, self.train, self.for_test, seed, world, keeper or Keeper(world)))
            else:
                change = _through(step, _change(step, config, train.source.levels, seed, world.device))
            self._changes[step] = change
            self.train = change(self.train)

    def for_test(self, clean: Published) -> Published:
        """Test samples, or clean ones of the attacker's, through those steps that change every image."""
        for step in self._steps.reading:
            if step in self._changes:
                clean = self._changes[step](clean)
        return clean


def _through(step: Applied, change: Publish) -> Change:
    return lambda samples: samples.through(change, squeezed_shape(step, samples.shape))


def _change(step: Applied, config: VictimConfig, levels: int, seed: int, device: torch.device) -> Publish:
    if step.name in PURIFICATIONS:
        return purification(step, config.purifier, levels, seed, device)
    return lambda ids, samples: squeeze(samples, [step], levels)
