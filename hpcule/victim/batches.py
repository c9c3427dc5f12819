"""From what was published to what a victim's network sees: ordinary augmentation, then countermeasures."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from hpcule.config.errors import UsageError
from hpcule.data.augment import CropFlip
from hpcule.data.keyed import key
from hpcule.data.source import Ids
from hpcule.victim.augmentation import augment
from hpcule.victim.config import VictimConfig
from hpcule.victim.countermeasures import Applied, countermeasure
from hpcule.victim.mixing import Mixed, mix
from hpcule.victim.projection import fit_directions, project
from hpcule.victim.published import Published
from hpcule.victim.squeeze import squeeze


class Batches:
    """The training batches of one victim."""

    def __init__(self, config: VictimConfig, train: Published, seed: int, device: torch.device) -> None:
        """Take the recipe's steps apart by where they act.

        Raises:
            UsageError: the recipe is for images, and these are recordings.
        """
        source = train.source
        named = [*config.countermeasures, *([config.augment] if config.augment != "none" else [])]
        if source.rate is not None and named:
            raise UsageError(f"{', '.join(named)}: for images, and {source.name} holds recordings")
        steps = [countermeasure(text) for text in config.countermeasures]
        self._train = squeezed(train, steps)
        self._train.load()
        projected = any(step.name == "projection" for step in steps)
        self._directions = fit_directions(self._train, seed, device) if projected else None
        self._each = [step for step in steps if step.stage == "batch"]
        self._mixes = [step for step in steps if step.stage == "labels"]
        self._crop_flip = config.augment == "crop-flip"
        self._seed, self._device = seed, device

    def take(self, numbers: Ids, epoch: int, step: int, progress: float) -> Mixed:
        """Samples in [0, 1] with what the loss asks of them, on the device, after such a share of the steps."""
        images, labels = self._train.images(numbers, self._device)
        ids = self._train.ids[numbers]
        if self._directions is not None:
            images = project(images, self._directions)
        if self._crop_flip:
            padding = max(1, images.shape[3] // 8)
            images = CropFlip.draw(key(self._seed, "victim augment", epoch), ids, padding).apply(images)
        versions = max([1, *(each.versions(progress) for each in self._each)])
        purposes = [key(self._seed, "countermeasures", epoch, version) for version in range(versions)]
        seen = torch.cat([augment(images, self._each, purpose, ids) for purpose in purposes])
        return mix(seen, labels, self._mixes, key(self._seed, "mixing", step), versions)


def squeezed(train: Published, steps: Sequence[Applied]) -> Published:
    """A training set through those of the steps that change its samples once."""
    once, levels = [step for step in steps if step.stage == "samples"], train.source.levels
    return train.through(lambda samples: squeeze(samples, once, levels)) if once else train
